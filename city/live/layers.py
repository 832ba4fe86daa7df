"""What a domain shows live: declared in its live.py as LAYERS, of the messages that the stream publishes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from city.contracts.registry import modules
from city.models.model import Model
from city.settings import Settings
from city.streaming.sinks.kafka import DASHBOARD_TOPIC

Row = list[Any]


@dataclass(frozen=True)
class Layer:
    """The newest row of each key."""

    name: str
    kind: str
    """Of the messages: a contract's name, or a window's."""
    key: str
    time: str
    columns: tuple[str, ...]
    means: str
    topic: str = DASHBOARD_TOPIC
    ttl: timedelta = timedelta(minutes=3)
    """A key of which nothing is heard for so long is gone."""
    settle: timedelta = timedelta()
    """Of windows: a newer one takes the place of the one before when it has been open for so long; until then it has
    seen too little."""
    derived: tuple[str, ...] = ()
    derive: Callable[[Mapping[str, Any]], tuple[Any, ...]] | None = None
    """What follows from a message, as the columns `derived`."""
    predictions: Mapping[str, str] = field(default_factory=dict)
    """Columns that a model's champion gives, by the model's name; the key is its entity."""

    @property
    def header(self) -> tuple[str, ...]:
        """A row's columns; `t` is its time in milliseconds."""
        return (self.key, "t", *self.columns, *self.derived, *self.predictions)

    @property
    def own(self) -> int:
        """How many of a row's columns are not predictions."""
        return 2 + len(self.columns) + len(self.derived)

    def row(self, message: Mapping[str, Any]) -> Row:
        """Raises KeyError or ValueError for a message that is none of this layer."""
        derived = self.derive(message) if self.derive else ()
        at = milliseconds(message[self.time])
        found = [message[self.key], at, *(message.get(name) for name in self.columns), *derived]
        return found + [None] * len(self.predictions)


def layers(config: Settings) -> list[Layer]:
    """Every active domain's."""
    return [layer for module in modules(config, "live") for layer in module.LAYERS]


def feeds(models: Mapping[str, Model]) -> dict[str, str]:
    """The topics of what models say of single events, with the model's name."""
    return {model.stream.topic: model.name for model in models.values() if model.stream is not None}


def milliseconds(time: str) -> int:
    """Of an ISO 8601 time, since the epoch."""
    return int(datetime.fromisoformat(time).timestamp() * 1000)
