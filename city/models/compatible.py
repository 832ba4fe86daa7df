"""Whether a registered version takes the inputs that its model declares now.

A release may change the features of a model. A version of an earlier release then cannot predict: it is not compared
with, and its model is trained again at once.
"""

import hashlib

from city.models.exported import Exported
from city.models.model import Model, ModelError
from city.models.registry import Registry, Version

INPUTS = "inputs"
"""The tag of a version with the digest of its inputs."""


def inputs_digest(model: Model) -> str:
    """Returns a digest of the names and the order of the model's inputs."""
    return hashlib.sha256("\n".join(model.inputs).encode()).hexdigest()[:16]


def takes_inputs(model: Model, version: Version, registry: Registry) -> bool:
    """Returns whether the version takes the model's inputs.

    Versions of earlier releases have no digest. For these, only the number of inputs is compared.
    """
    if (digest := version.tags.get(INPUTS)) is not None:
        return digest == inputs_digest(model)
    try:
        Exported(model, registry.content(version))
    except ModelError:
        return False
    return True
