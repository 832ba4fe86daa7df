"""The responses of predictions and models.

Those of `/predict`, `/predict/batch`, `/feedback` and of the Open Inference Protocol are dictionaries, which orjson
encodes without validation: a prediction takes less time than a validation of its response.
"""

from typing import Literal, NotRequired

from pydantic import ConfigDict, JsonValue, with_config
from typing_extensions import TypedDict

from city.models.labels import Kind as ModelKind
from city.serving.roles import Kind, Role
from city.web.audit import AuditEntry
from city.web.responses import ConstantResponse, DeclaredResponse

_DESCRIBED = ConfigDict(use_attribute_docstrings=True)


@with_config(_DESCRIBED)
class Interval(TypedDict):
    """The interval that contains the share `coverage` of outcomes."""

    low: float
    high: float
    coverage: float


@with_config(_DESCRIBED)
class AnswerFields(TypedDict):
    """The fields of a response that depend on the kind of the model."""

    prediction: float | str
    """A number, a class, or normal or anomaly."""
    confidence: NotRequired[float]
    """The probability of the class, or of normal or anomaly."""
    threshold: NotRequired[float]
    """The probability from which on the second of two classes is predicted. It may depend on a category."""
    interval: NotRequired[Interval]
    unit: NotRequired[str]
    """The unit of a number."""
    score: NotRequired[float]
    """An anomaly detector's score. Above 1 it is an anomaly."""
    contributions: NotRequired[dict[str, float]]
    """Each input's share in the answer."""
    probabilities: NotRequired[dict[str, float]]
    """The probability of each class."""


@with_config(_DESCRIBED)
class Explanation(TypedDict):
    """The explanation of an answer."""

    contributions: dict[str, float]
    """Each input's share in the answer."""
    base: NotRequired[float]
    """The mean output, to which the contributions are added."""


@with_config(_DESCRIBED)
class PredictionResponse(AnswerFields):
    """A model's answer."""

    id: str
    """To be given with the outcome, at /feedback."""
    model: str
    version: int
    role: Role
    """The part of the version in an experiment; otherwise champion."""
    cached: bool
    """Whether the same input was answered a short time ago, and the model was not run again."""
    latency_ms: float
    features: NotRequired[dict[str, JsonValue]]
    """The features of the entity that was asked about."""
    base: NotRequired[float]
    """The mean output, to which the contributions are added."""


@with_config(_DESCRIBED)
class BatchPrediction(TypedDict):
    """The answer to an instance of a batch."""

    id: str
    prediction: float | str
    confidence: NotRequired[float]
    low: NotRequired[float]
    """The lower end of the interval."""
    high: NotRequired[float]
    threshold: NotRequired[float]
    """The probability from which on the second of two classes is predicted. It may depend on a category."""
    probabilities: NotRequired[dict[str, float]]


@with_config(_DESCRIBED)
class BatchResponse(TypedDict):
    """The answers to the instances of a batch, in their order."""

    model: str
    version: int
    predictions: list[BatchPrediction]


@with_config(_DESCRIBED)
class FeedbackResponse(TypedDict):
    """The judgement of a prediction by its outcome."""

    id: str
    model: str
    version: int
    loss: float
    repeated: bool
    """Whether the outcome was recorded before, so that nothing changed."""


class ServerMetadata(ConstantResponse):
    """The server, as the Open Inference Protocol describes it."""

    name: str = "city"
    version: str = "2"
    extensions: list[str] = []


@with_config(_DESCRIBED)
class TensorMetadata(TypedDict):
    """An input or an output of a model."""

    name: str
    datatype: Literal["FP32", "FP64", "BYTES"]
    shape: list[int]
    """-1 is any size."""


class ModelMetadata(ConstantResponse):
    """A model's tensors."""

    name: str
    versions: list[str]
    """The champion; empty while there is none."""
    platform: str = "onnx"
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReadiness(DeclaredResponse):
    """Whether a model has a champion."""

    name: str
    ready: bool


@with_config(_DESCRIBED)
class OutputTensor(TypedDict):
    """An output with its values, row by row."""

    name: str
    datatype: Literal["FP64", "BYTES"]
    shape: list[int]
    data: list[float | str]


@with_config(_DESCRIBED)
class InferResponse(TypedDict):
    """The answers to a request's tensors."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: NotRequired[str]
    """The id of the request, where it has one."""


@with_config(_DESCRIBED)
class LimitsReport(TypedDict):
    """The limits at which a canary is ended."""

    error_rate: float
    latency_ratio: float
    least_requests: int


@with_config(_DESCRIBED)
class ArmSummary(TypedDict):
    """The results of one side of an experiment."""

    requests: int
    errors: int
    latency_ms: float | None
    """The median of the newest requests."""
    outcomes: int
    loss: float | None
    """The mean loss; null without outcomes."""


@with_config(_DESCRIBED)
class Comparison(TypedDict):
    """The difference of both sides' mean losses: the other version's minus the champion's."""

    difference: float
    low: float
    """The lower end of the 95 % interval."""
    high: float
    p_value: float
    """It may be read at any time."""
    outcomes: int
    evidence: NotRequired[float]
    """Absent for an A/B test, which no evidence ends."""
    ends_at: NotRequired[float]
    """The evidence at which a canary ends."""


@with_config(_DESCRIBED)
class ExperimentReport(TypedDict):
    """An experiment and its results."""

    kind: Kind
    version: int
    share: float
    limits: LimitsReport
    by: str
    """Who began it."""
    since: float
    """When it began, in seconds since the epoch."""
    champion: NotRequired[int]
    """The champion that the version is compared with; absent before the first request."""
    arms: dict[str, ArmSummary]
    """The results by role."""
    comparison: Comparison | None
    """Null while there are too few outcomes."""


class ModelVersion(DeclaredResponse):
    """A registered version of a model."""

    version: int
    aliases: list[str]
    trained_at: str | None
    metrics: dict[str, float]


class ModelSummary(DeclaredResponse):
    """A model, its newest versions and its experiment."""

    name: str
    means: str
    kind: ModelKind
    unit: str | None
    classes: list[str] | None
    features: str
    """The name of the feature view."""
    entity: list[str]
    """The key of the feature view."""
    measure: str
    """The name of the metric that decides about promotion."""
    ahead_minutes: float
    """How far ahead the model predicts."""
    serving: int | None
    """The champion's version; null while there is none."""
    experiment: ExperimentReport | None
    versions: list[ModelVersion]


class ModelsResponse(DeclaredResponse):
    """Every model."""

    models: list[ModelSummary]


class ModelInput(DeclaredResponse):
    """An input of a model."""

    name: str
    kind: str
    unit: str | None
    nullable: bool
    means: str


class ModelResponse(ModelSummary):
    """A model with all its versions and its inputs."""

    inputs: list[ModelInput]


class RoutingResponse(DeclaredResponse):
    """A model's routing: which version answers."""

    champion: int | None
    experiment: ExperimentReport | None
    ended: str | None
    """Why the platform ended the last experiment."""


class AuditResponse(DeclaredResponse):
    """Entries of the audit log, the newest first."""

    entries: list[AuditEntry]
