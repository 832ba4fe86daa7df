"""The types in which a domain declares its events.

Nothing here computes: the modules schema, validity, questdb and others derive what follows from a contract.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from zoneinfo import available_timezones

from city.settings import Unknown

Compatibility = Literal["backward", "forward", "full", "none"]
Kind = Literal["string", "float", "integer", "boolean", "timestamp"]
MAX_STRING = 1024
MACHINE_ZONE = "machine"
"""The zone of naive times that stands for that of the machine on which the city runs."""
_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_TOPIC = re.compile(r"^[a-zA-Z0-9._-]{1,249}$")  # Kafka's own rule, org.apache.kafka.common.internals.Topic


class ContractError(ValueError):
    """Reports an invalid declaration. The message names the contract, the field and the fix."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of an event: a column of its tables.

    `within` names the JSON object that contains the field on the wire, as in `{"readings": {"temperature": 21.5}}`.
    Without it, the field stands in the event itself. `minimum` and `maximum` are inclusive and in `unit`. A string may
    be limited to `choices` or to `pattern` (a regular expression that must match the whole value). Strings never
    contain control characters. `zone` is that of a time without one: a name such as America/New_York, or MACHINE_ZONE.
    Raises ContractError where the declaration contradicts itself.
    """

    name: str
    kind: Kind
    description: str
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    nullable: bool = False
    within: str | None = None
    zone: str = "UTC"

    def __post_init__(self) -> None:
        for name in (self.name, *([self.within] if self.within else ())):
            if not _NAME.match(name):
                raise ContractError(f"field {name!r}: a name is lower-case letters, digits and underscores")
        check_range(f"field {self.name!r}", self.minimum, self.maximum)
        if self.kind not in ("float", "integer") and (self.minimum, self.maximum) != (None, None):
            raise ContractError(f"field {self.name!r} is a {self.kind}: only numbers have a range")
        if self.kind != "string" and (self.choices or self.pattern):
            raise ContractError(f"field {self.name!r} is a {self.kind}: only strings have choices or a pattern")
        if not is_zone(self.zone):
            raise ContractError(f"field {self.name!r}: no time zone {self.zone!r}; such as Europe/Berlin")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A measured quantity: its unit, and the range that a sensor of this kind can possibly report (inclusive).

    `idle` is a value that a sensor that works may repeat for days, such as the 0 of a rain gauge. A quantity that
    `follows_the_clock` is much the same at the same hour of other days, so that an unusual mean can be told. The
    weather is not.
    """

    name: str
    unit: str
    minimum: float
    maximum: float
    description: str
    idle: float | None = None
    follows_the_clock: bool = True

    def __post_init__(self) -> None:
        check_range(f"quantity {self.name!r}", self.minimum, self.maximum)


@dataclass(frozen=True, kw_only=True)
class Quantities:
    """A cross-field rule: `value` has the unit and the range of the quantity that the field `by` names."""

    value: str
    unit: str
    by: str
    choices: tuple[Quantity, ...]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A cross-field rule: an SQL condition that is true for every valid event (null counts as broken)."""

    name: str
    sql: str
    description: str


@dataclass(frozen=True, kw_only=True)
class H3Cell:
    """A derived column: the H3 cell (hexadecimal string) of a position, computed once, at decode."""

    name: str
    latitude: str = "latitude"
    longitude: str = "longitude"
    resolution: int = 8


@dataclass(frozen=True)
class Aggregate:
    """A column of a window's row."""

    name: str
    source_column: str = ""


class Count(Aggregate):
    """The number of events, or of the values of the column `source_column`. A null is no value."""


class Distinct(Aggregate):
    """The number of different values of the column `source_column`. A window has at most one."""


class Mean(Aggregate):
    """The mean of the values of the column `source_column`; null where there are none."""


class Std(Aggregate):
    """The sample standard deviation of the column `source_column`; null for fewer than two values."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """An event-time tumbling window, aligned to the epoch, with one row for each value of the field `by`.

    `where` is an SQL condition on the event. An event is too late when its window ended more than `lateness` before
    the watermark of its partition. A late event is counted and changes nothing.
    """

    name: str
    every: timedelta
    by: str
    aggregates: tuple[Aggregate, ...]
    description: str
    where: str = "true"
    lateness: timedelta = timedelta(minutes=10)
    topic: str | None = None

    @property
    def distinct_column(self) -> str | None:
        """The field whose different values the window counts, or None."""
        return next((a.source_column for a in self.aggregates if isinstance(a, Distinct)), None)

    @property
    def measured_columns(self) -> tuple[str, ...]:
        """The fields whose moments the window keeps."""
        return tuple(dict.fromkeys(a.source_column for a in self.aggregates if isinstance(a, Mean | Std)))

    @property
    def counted_columns(self) -> tuple[str, ...]:
        """The fields whose values the window counts: those that are measured, and those of a Count."""
        counts = [a.source_column for a in self.aggregates if isinstance(a, Count) and a.source_column]
        return tuple(dict.fromkeys((*self.measured_columns, *counts)))


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference to another contract: the field `field` contains a key that the contract `to` announces.

    `unknown` is what happens to events with another one. A null refers to nothing. `key` is the field of `to` with the
    keys: by default the field of the same name, else the key of the contract.
    """

    field: str
    to: str
    key: str = ""
    unknown: Unknown = "flag"

    def key_of(self, contract: "Contract") -> str:
        """Returns the field of the contract `to` that has the keys."""
        return self.key or (self.field if self.field in [f.name for f in contract.fields] else contract.key)


@dataclass(frozen=True, kw_only=True)
class Contract:
    """A stream of events: its topic, key, event time, fields and rules, declared once.

    `mqtt` is the MQTT topic on which the events also arrive, with <field> for a level that varies. A bridge carries
    them to Kafka. `rate` is "high" for topics of the hot path, "low" for topics that a Dagster sensor turns into runs.
    An event more than `max_ahead` after its arrival in Kafka, or more than `max_age` before it, is rejected.
    A message of more than `max_bytes` is rejected, too. QuestDB keeps rows for `ttl`, one for each event time and key.
    `compatibility` is what a new version promises towards the version before it. Raises ContractError where the
    declaration contradicts itself.
    """

    name: str
    topic: str
    version: int
    description: str
    key: str
    event_time: str
    fields: tuple[Field, ...]
    quantities: Quantities | None = None
    rules: tuple[Rule, ...] = ()
    references: tuple[Reference, ...] = ()
    cells: tuple[H3Cell, ...] = ()
    windows: tuple[Window, ...] = ()
    rate: Literal["high", "low"] = "high"
    mqtt: str | None = None
    partitions: int = 4
    max_ahead: timedelta = timedelta(minutes=1)
    max_age: timedelta = timedelta(days=30)
    max_bytes: int = 1_000_000
    ttl: timedelta = timedelta(days=2)
    compatibility: Compatibility = "backward"

    def __post_init__(self) -> None:
        def require(valid: bool, mend: str) -> None:
            if not valid:
                raise ContractError(f"contract {self.name!r}: {mend}")

        names = [field.name for field in self.fields]
        columns = set(names) | {cell.name for cell in self.cells}
        require(bool(_NAME.match(self.name)), "a name is lower-case letters, digits and underscores")
        require(bool(_TOPIC.match(self.topic)), f"topic {self.topic!r} is not a name that Kafka takes")
        require(len(names) == len(set(names)), f"a field stands twice in {names}")
        require(len(columns) == len(names) + len(self.cells), "a cell has the name of a field")
        for name in self.objects:
            require(name not in columns, f"the object {name!r} has the name of a field")
        for role, name in (("key", self.key), ("event_time", self.event_time)):
            require(name in names, f"{role} {name!r} is not among its fields {names}")
            require(not self.field(name).nullable, f"{role} {name!r} must not be nullable")
        require(self.field(self.event_time).kind == "timestamp", f"event_time {self.event_time!r} must be a timestamp")
        require(self.field(self.key).kind == "string", f"key {self.key!r} must be a string")
        for reference in self.references:
            require(reference.field in names, f"{reference.field!r} refers, and is not among its fields {names}")
        used = [n for cell in self.cells for n in (cell.latitude, cell.longitude)]
        if self.quantities:
            used += [self.quantities.value, self.quantities.unit, self.quantities.by]
        for name in used:
            require(name in names, f"{name!r} is used and is not among its fields {names}")
        for window in self.windows:
            require(len([a for a in window.aggregates if isinstance(a, Distinct)]) <= 1, "one Distinct a window")
            for name in (window.by, *(a.source_column for a in window.aggregates if a.source_column)):
                require(name in columns, f"window {window.name!r} uses {name!r}, which is not among {sorted(columns)}")

    @property
    def mqtt_filter(self) -> str | None:
        """The MQTT filter to subscribe to: `city/sensors/<location>/<type>` becomes `city/sensors/+/+`."""
        return re.sub(r"<[^/]*>", "+", self.mqtt) if self.mqtt else None

    def field(self, name: str) -> Field:
        """Returns the field of that name. Raises StopIteration where there is none."""
        return next(field for field in self.fields if field.name == name)

    @property
    def objects(self) -> dict[str, tuple[Field, ...]]:
        """The JSON objects within an event, by name, with the fields that they contain."""
        names = dict.fromkeys(field.within for field in self.fields if field.within)
        return {name: tuple(field for field in self.fields if field.within == name) for name in names}

    def of_kind(self, kind: Kind) -> Iterator[Field]:
        """Yields the fields of one type."""
        return (field for field in self.fields if field.kind == kind)


def is_zone(name: str) -> bool:
    """Returns whether a naive time can be in the zone of this name."""
    return name in ("UTC", MACHINE_ZONE) or name in available_timezones()


def check_range(what: str, minimum: float | None, maximum: float | None) -> None:
    """Raises ContractError that names `what` where the minimum is above the maximum."""
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ContractError(f"{what}: its minimum {minimum} is above its maximum {maximum}, so no value can be valid")
