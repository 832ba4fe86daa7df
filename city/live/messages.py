"""The messages of the WebSocket at /ws/stream: one snapshot, then a delta every half second.

They are dictionaries, because they are encoded for hundreds of clients. The hub joins a message from JSON that the
reader has encoded by layer, and a test validates its messages by `STREAM_MESSAGE`.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, WithJsonSchema, with_config
from typing_extensions import TypedDict

_DESCRIBED = ConfigDict(use_attribute_docstrings=True)
_ROW_SCHEMA = {
    "type": "array",
    "description": "The key, the time in ms since the epoch, and the values of the layer's other columns.",
    "prefixItems": [{"type": "string"}, {"type": "integer"}],
    "items": {},
    "minItems": 2,
}

Row = Annotated[list[Any], WithJsonSchema(_ROW_SCHEMA)]
"""A layer's newest row of one key: the key, its time in milliseconds since the epoch, then the other columns."""


@with_config(_DESCRIBED)
class LayerSnapshot(TypedDict):
    """All rows of a layer."""

    columns: tuple[str, ...]
    means: str
    rows: list[Row]


@with_config(_DESCRIBED)
class LayerDelta(TypedDict):
    """The changes of a layer."""

    rows: list[Row]
    gone: list[str]
    """Keys that were removed."""


@with_config(ConfigDict(extra="allow"))
class Score(TypedDict):
    """A model's output for one event. Its other fields depend on the model."""

    model: str
    id: str
    timestamp: NotRequired[str]


@with_config(_DESCRIBED)
class ScoreFeed(TypedDict):
    """New scores of single events, the newest last. It is the layer `scores`."""

    rows: list[Score]


@with_config(_DESCRIBED)
class _Envelope(TypedDict):
    epoch: str
    """Identifies the server process. Sequence numbers of different processes are unrelated."""
    seq: int
    at: int
    """The server's time, in milliseconds since the epoch."""


@with_config(_DESCRIBED)
class SnapshotMessage(_Envelope):
    """The whole city: the first message, and one for a client that fell behind."""

    type: Literal["snapshot"]
    layers: dict[str, LayerSnapshot | ScoreFeed]


@with_config(_DESCRIBED)
class DeltaMessage(_Envelope):
    """The changes since the message before."""

    type: Literal["delta"]
    layers: dict[str, LayerDelta | ScoreFeed]


StreamMessage = Annotated[SnapshotMessage | DeltaMessage, Field(discriminator="type")]
STREAM_MESSAGE: TypeAdapter[SnapshotMessage | DeltaMessage] = TypeAdapter(StreamMessage)
