"""The types in which a domain declares its sources.

Nothing here computes: see extract and mapping.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from city.contracts.model import Contract, Field, is_zone
from city.sources.paths import PathError, alternatives, steps
from city.sources.units import UnitError, are_alike, conversion

Accepted = Literal["text", "comma", "nan", "bom"]
"""What a source accepts beyond strict JSON: numbers as text, decimal commas, words for a missing number, a byte order
mark before the message."""
Form = Literal["iso", "epoch_s", "epoch_ms", "epoch_us"]
"""The form of a time: ISO 8601, or a number since 1970."""
EPOCHS: Mapping[Form, tuple[int, str]] = {
    "epoch_s": (1, "seconds"),
    "epoch_ms": (1_000, "milliseconds"),
    "epoch_us": (1_000_000, "microseconds"),
}
"""The units per second of each form that is a number since 1970, and the unit's name."""
Format = Literal["json", "gtfs_realtime", "ngsi"]
ARRIVED = "arrived"
ROOT = "$"
"""The path of `items` for messages that are lists."""
CITY_ZONE = "city"
"""The zone of naive times that stands for CITY_TIMEZONE."""
_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_PART = re.compile(r"<([a-z][a-z0-9_]*)(#)?>")
_Require = Callable[[bool, str], None]
_REFERENCE = re.compile(r"{([a-z][a-z0-9_]*)}")


class SourceError(ValueError):
    """Reports an invalid declaration. The message names the source, the field and the fix."""


class FormatError(ValueError):
    """Reports a message that is not of its source's format."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """Where a field of an event comes from, and how it is converted.

    A number is converted from `unit` to the unit of the field, and rounded for an integer field; without `unit`, an
    integer field accepts only whole numbers. `words` translates words; a word that it does not list
    is rejected, unless `keeps_words`. `form` is that of a time, and `zone` that of a time without one: a name such as
    America/New_York, CITY_ZONE or MACHINE_ZONE. Where the value is missing, the field is `default` (a time is that of
    the arrival, for ARRIVED); without one, a field that must not be null rejects the event. Where a value that `skips`
    is missing, or is none of `words`, there is no event.
    """

    unit: str | None = None
    words: Mapping[str, str | float] = field(default_factory=dict)
    keeps_words: bool = False
    form: Form = "iso"
    zone: str = "UTC"
    default: str | float | bool | None = None
    skips: bool = False

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True)
class At(Value):
    """The value at a path of the message, such as `uplink_message.received_at` (see `city.sources.paths`).

    In a source with `items`, the path begins at the item. A path that begins with `^.` begins at the message then.
    `unit_at` is the path of a word for the unit of this number, and `units` translates it. Where the message has none,
    it is in `unit`.
    """

    path: str
    unit_at: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)

    __hash__ = Value.__hash__


@dataclass(frozen=True)
class Part(Value):
    """The part of the MQTT topic that stands at `<name>` in the source's `mqtt`: a level, or the rest at `<name#>`."""

    name: str

    __hash__ = Value.__hash__


@dataclass(frozen=True)
class Always(Value):
    """The same value in every event."""

    value: str | float | bool

    __hash__ = Value.__hash__


@dataclass(frozen=True)
class Arrived(Value):
    """The time at which the message arrived, for devices without a clock."""

    __hash__ = Value.__hash__


@dataclass(frozen=True)
class Joined(Value):
    """A text with names in braces, such as `{device}_{type}`, of the event's other fields and of the source's names."""

    template: str

    __hash__ = Value.__hash__

    @property
    def references(self) -> tuple[str, ...]:
        """The names in braces."""
        return tuple(_REFERENCE.findall(self.template))


@dataclass(frozen=True, kw_only=True)
class Source:
    """The messages of one shape, and the events of `contract` that they become.

    They arrive on MQTT topics like `mqtt` (as in `v3/<application>/devices/<device>/up`; `+` is a level without a
    name, and `<device#>` at the end is the rest of the topic, of one or more levels), on the Kafka topic `kafka`, or at
    POST /ingest/<name>. With `items`, the path of a list, each item of it is an event. With `measures`, each quantity
    of the contract that has a value in the message is an event.

    `fields` maps the name of each field to its value, and `names` gives further values for Joined. `accepts` lists what
    the source accepts beyond strict JSON. `when` are paths of the message whose value must be one of some
    texts (the empty text where there is none); messages with others are no events. `documentation` is where the vendor
    describes the shape, and `sample` its published message.

    Raises SourceError where the declaration contradicts itself.
    """

    name: str
    contract: Contract
    description: str
    documentation: str
    sample: str
    fields: Mapping[str, Value]
    mqtt: str | None = None
    kafka: str | None = None
    format: Format = "json"
    items: str | None = None
    measures: Mapping[str, Value] = field(default_factory=dict)
    names: Mapping[str, Value] = field(default_factory=dict)
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignored_topics: str | None = None
    """A regular expression of whole MQTT topics among those of `mqtt` that carry no events, such as commands."""
    accepts: frozenset[Accepted] = frozenset()
    has_attribute_topics: bool = False
    """Whether a message may also be the bare value of one attribute, which the last level of its MQTT topic names."""
    is_optional: bool = False
    """Whether a message without any measure is ignored, not rejected: for topics that devices of many kinds share."""

    __hash__ = object.__hash__

    @property
    def needs_topic(self) -> bool:
        """Whether a value is a part of the MQTT topic, so that the messages can come from nowhere else."""
        return any(isinstance(value, Part) for value in (*self.names.values(), *self.fields.values()))

    def __post_init__(self) -> None:
        def require(valid: bool, mend: str) -> None:
            if not valid:
                raise SourceError(f"source {self.name!r}: {mend}")

        known = [f.name for f in self.contract.fields]
        require(bool(_NAME.match(self.name)), "a name is lower-case letters, digits and underscores")
        ends = (self.mqtt or "").partition("#>")[2] == ""
        require(ends, f"the rest of an MQTT topic, as <device#>, stands at its end, and not in {self.mqtt!r}")
        try:
            re.compile(self.ignored_topics or "")
        except re.error as error:
            require(False, f"ignored_topics {self.ignored_topics!r} is no regular expression: {error}")
        for name, value in {**self.names, **self.fields, **self.measures}.items():
            zone = value.zone
            require(zone == CITY_ZONE or is_zone(zone), f"{name}: no time zone {zone!r}; such as Europe/Berlin")
            if isinstance(value, At):
                self._check_path(name, value.path)
                require(
                    (value.unit_at is None) == (not value.units) and (not value.units or value.unit is not None),
                    f"{name}: unit_at, units and unit belong together: the unit's path, its words, and the default",
                )
            if isinstance(value, Part):
                require(value.name in self.parts, f"{name}: no level <{value.name}> in its MQTT topic {self.mqtt!r}")
            for other in value.references if isinstance(value, Joined) else ():
                require(other in known or other in self.names, f"{name}: {{{other}}} is no field, and no name of it")
        for name in self.fields:
            require(name in known, f"{name!r} is not a field of {self.contract.name}: {', '.join(known)}")
        for needed in self.contract.fields:
            mapped = needed.name in self.fields or (self.measures and needed.name in self._measured)
            require(bool(mapped) or needed.nullable, f"no value for {needed.name!r}, which must not be null")
        self._check_measures(require)
        self._check_units(require)

    @property
    def mqtt_filter(self) -> str | None:
        """The MQTT filter to subscribe to."""
        return _PART.sub(lambda part: "#" if part[2] else "+", self.mqtt) if self.mqtt else None

    def ignores(self, topic: str) -> bool:
        """Returns whether an MQTT topic carries no events."""
        return self.ignored_topics is not None and re.fullmatch(self.ignored_topics, topic) is not None

    @property
    def parts(self) -> dict[str, int]:
        """The level of each named part of the MQTT topic, counted from 0."""
        return {name: number for number, (name, _) in self._named_levels.items()}

    @property
    def rest(self) -> str | None:
        """The name of the part that is the rest of the MQTT topic; None where there is none."""
        return next((name for name, is_rest in self._named_levels.values() if is_rest), None)

    @property
    def _named_levels(self) -> dict[int, tuple[str, bool]]:
        """The name of each named level of the MQTT topic, and whether it is the rest of it."""
        levels = enumerate((self.mqtt or "").split("/"))
        return {number: (match[1], bool(match[2])) for number, level in levels if (match := _PART.fullmatch(level))}

    def unit_of(self, name: str) -> str | None:
        """The contract's unit of a field or of a measure."""
        quantities = self.contract.quantities
        if name in self.measures and quantities is not None:
            return next(q.unit for q in quantities.choices if q.name == name)
        return self.contract.field(name).unit

    @property
    def _measured(self) -> tuple[str, ...]:
        """The fields that the measures fill."""
        quantities = self.contract.quantities
        return (quantities.value, quantities.unit, quantities.by) if quantities else ()

    def _check_path(self, name: str, path: str) -> None:
        for alternative in alternatives(path):
            try:
                steps(alternative.removeprefix("^."))
            except PathError as error:
                raise SourceError(f"source {self.name!r}: {name}: {error}") from None

    def _check_units(self, require: _Require) -> None:
        for name, value in {**self.fields, **self.measures}.items():
            if value.unit is None:
                continue
            to = self.unit_of(name)
            require(to is not None, f"{name}: has no unit in {self.contract.name}, so it cannot be converted")
            try:
                conversion(value.unit, to or "")
                for unit in value.units.values() if isinstance(value, At) else ():
                    are_alike(unit, to or "")
            except UnitError as error:
                raise SourceError(f"source {self.name!r}: {name}: {error}") from None

    def _check_measures(self, require: _Require) -> None:
        if not self.measures:
            return
        quantities = self.contract.quantities
        require(quantities is not None, f"{self.contract.name} has no quantities, so it has no measures")
        choices = [q.name for q in quantities.choices] if quantities else []
        for name in self.measures:
            require(name in choices, f"{name!r} is no quantity of {self.contract.name}: {', '.join(choices)}")
        for name in self._measured:
            require(name not in self.fields, f"{name!r} is filled by its measures, and stands among its fields")


def field_of(source: Source, name: str) -> Field | None:
    """Returns the contract's field of that name, or None for one of the source's names or measures."""
    return next((f for f in source.contract.fields if f.name == name), None)
