"""Layers of the live city. A domain declares them in its live.py as LAYERS, on messages that the stream publishes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from city.contracts.registry import modules
from city.live.messages import Row
from city.models.model import Model
from city.settings import Settings
from city.streaming.topics import DASHBOARD_TOPIC

Message = Mapping[str, Any]
"""A message of a topic, from its JSON."""


@dataclass(frozen=True)
class Layer:
    """A table of the live city: the newest row of each key, from the messages of one kind."""

    name: str
    kind: str
    """The kind of the messages: a contract's name, or a window's."""
    key: str
    time: str
    columns: tuple[str, ...]
    description: str
    topic: str = DASHBOARD_TOPIC
    ttl: timedelta = timedelta(minutes=3)
    """A key without a message for so long is removed."""
    settle: timedelta = timedelta()
    """For windows: a newer window replaces the one before when it has been open for so long. Until then it has too few
    events."""
    derived: tuple[str, ...] = ()
    derive: Callable[[Message], tuple[object, ...]] | None = None
    """Computes the values of the columns `derived` from a message."""
    predictions: Mapping[str, str] = field(default_factory=dict)
    """By column: the name of the model whose champion predicts it. The layer's key is the model's entity."""

    @property
    def header(self) -> tuple[str, ...]:
        """The columns of a row. `t` is its time, in milliseconds since the epoch."""
        return (self.key, "t", *self.columns, *self.derived, *self.predictions)

    @property
    def first_prediction(self) -> int:
        """The index of a row's first prediction. The predictions are its last columns."""
        return 2 + len(self.columns) + len(self.derived)

    def row(self, message: Message) -> Row:
        """The row of a message, without predictions. Raises KeyError or ValueError for a message that does not fit the
        layer."""
        derived = self.derive(message) if self.derive else ()
        at = milliseconds(message[self.time])
        values = [message[self.key], at, *(message.get(name) for name in self.columns), *derived]
        return values + [None] * len(self.predictions)


def layers(config: Settings) -> list[Layer]:
    """The layers of all active domains."""
    return [layer for module in modules(config, "live") for layer in module.LAYERS]


def feeds(models: Mapping[str, Model]) -> dict[str, str]:
    """By topic of a model's scores of single events: the name of the model."""
    return {model.stream.topic: model.name for model in models.values() if model.stream is not None}


def milliseconds(time: str) -> int:
    """An ISO 8601 time as milliseconds since the epoch."""
    return int(datetime.fromisoformat(time).timestamp() * 1000)
