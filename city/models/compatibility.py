"""Decides whether a version still takes the inputs of its model, whose declaration may have changed since."""

from collections.abc import Callable

from city.models.exported import Exported, OtherInputs
from city.models.model import Model
from city.models.version import Version

INPUTS = "inputs"
"""The tag of a version with the names of its inputs."""


def name_inputs(model: Model) -> str:
    """Returns the tag's value for a version that is trained now."""
    return " ".join(model.inputs)


def takes_inputs(model: Model, version: Version, content: Callable[[], bytes]) -> bool:
    """Returns whether a version takes the inputs that the model declares now.

    `content` reads its ONNX model. That is done for a version without the tag, of an earlier release: the number of its
    inputs decides.
    """
    if INPUTS in version.tags:
        return version.tags[INPUTS] == name_inputs(model)
    try:
        Exported(model, content())
    except OtherInputs:
        return False
    return True
