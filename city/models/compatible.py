"""Whether a registered version takes the inputs that its model declares now.

A release may change the features of a model. A version of an earlier release then cannot predict: it is not compared
with, and its model is trained again at once.
"""

import hashlib

from city.models.exported import ExportedInputs
from city.models.model import Model
from city.models.registry import Registry, Version

INPUTS = "inputs"
"""The tag with the digest of its inputs, which a version of an earlier release has."""
_INPUTS_OF: dict[str, ExportedInputs] = {}
"""The inputs of each version by its run. They never change, and a sensor asks often for the same ones."""


def inputs_digest(model: Model) -> str:
    """Returns a digest of the names and the order of the model's inputs."""
    return hashlib.sha256("\n".join(model.inputs).encode()).hexdigest()[:16]


def takes_inputs(model: Model, version: Version, registry: Registry) -> bool:
    """Returns whether the version takes the model's inputs, by the names in its ONNX file.

    A version of an earlier release has no names there. It has a digest of them as a tag, or only their number.
    """
    if (inputs := _INPUTS_OF.get(version.run)) is None:
        inputs = _INPUTS_OF[version.run] = ExportedInputs.read(registry.content(version))
    if inputs.names is None and (digest := version.tags.get(INPUTS)) is not None:
        return digest == inputs_digest(model)
    return inputs.mismatch(model) is None
