"""Conditions on the stream's messages that raise alarms, as domains declare them.

A domain declares `ALARMS`, a tuple of `Condition`, in its alarms.py.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from city.alerts.model import AlertError
from city.contracts.registry import modules
from city.settings import Settings
from city.severity import Severity

Message = Mapping[str, Any]
CAUSES = "domain/"
MOST_BYTES = 24_000_000
"""The largest size of a watch's state, as JSON: 24,000 cells with an hour of two-minute windows each. No city has as
many cells of H3's resolution 9 (0.105 km²; Houston has 16,000)."""
_TRACK_BYTES, _ENTRY_BYTES = 200, 24
"""The size of a key's state, and of each level or value in it."""
_NAME_CHARACTERS = 80


@dataclass(frozen=True)
class Persistence:
    """Is fulfilled where `count` of a key's last messages, `messages` in number, are at this level or above."""

    level: float
    """As `Condition.level` returns it: 1 is the limit."""
    count: int
    messages: int


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The usual value of a key: the median of its last `length` values, once there are `least` of them.

    Values of abnormal messages are left out, so that the baseline does not follow an abnormal state. A state that has
    lasted for `accepted_after` is the new baseline.
    """

    value: Callable[[Message], float | None]
    """Reads the value from a message, in the unit of its field. None where the message has none."""
    length: int
    least: int
    accepted_after: timedelta = timedelta(hours=3)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One kind of alarm of a domain, on the messages of one topic. Each key has at most one open alarm of the kind.

    `level` returns how close a message is to the limit: 1 is the limit, more is worse, None means that the message
    tells nothing about the condition. Its second argument is the key's baseline value; None where no baseline is
    declared, or where it has too few values.

    The alarm is raised when any of `raised_by` is fulfilled. It ends when no message has been at `clear_below` or above
    for `calm_for` and a calm message arrives. It also ends when no message has been at `clear_below` or above for
    `forgotten_after`, whether or not the key still sends messages. Both durations are measured by the event times of
    the key's partition: where the stream itself is silent, nothing is known and no alarm ends.
    """

    kind: str
    description: str
    topic: str
    key: str
    """The message's field that names what an alarm is about."""
    level: Callable[[Message, float | None], float | None]
    raised_by: tuple[Persistence, ...]
    clear_below: float
    calm_for: timedelta
    forgotten_after: timedelta
    title: Callable[[Message], str]
    detail: Callable[[Message], Mapping[str, object]]
    severities: tuple[tuple[float, Severity], ...] = ((1.0, "warning"),)
    """The lowest gravity of each severity, ascending. The severity rises while an alarm lasts, and does not fall."""
    gravity: Callable[[Message], float] | None = None
    """The number that the severity follows from; the level where it is None."""
    type: str = ""
    """The label `type`; the kind where empty."""
    time: str = "timestamp"
    """The message's field with the time of its event. A message replaces the one of the same key and time."""
    baseline: Baseline | None = None
    repeat_every: timedelta = timedelta(minutes=1)
    domain: str = ""
    """Set when the condition is discovered."""
    only: str = ""
    """Where a topic carries several kinds of messages: the value of the field `kind` in those that the condition is
    about."""

    def __post_init__(self) -> None:
        if not self.raised_by or any(not 0 < p.count <= p.messages for p in self.raised_by):
            raise AlertError(f"alarm {self.kind!r}: raised_by needs persistences with 0 < count <= messages")
        if self.clear_below > min(persistence.level for persistence in self.raised_by):
            raise AlertError(f"alarm {self.kind!r}: clear_below must not be above the level that raises it")
        if self.calm_for > self.forgotten_after:
            raise AlertError(f"alarm {self.kind!r}: calm_for must not be longer than forgotten_after")
        if len(self.name) > _NAME_CHARACTERS:
            raise AlertError(f"alarm {self.name!r} has a name of {len(self.name)} characters: use {_NAME_CHARACTERS}")

    @property
    def name(self) -> str:
        """`<domain>/<kind>`."""
        return f"{self.domain}/{self.kind}"

    @property
    def most_keys(self) -> int:
        """How many keys a watch follows at once. A key without messages for `forgotten_after` is forgotten anyway."""
        entries = max(persistence.messages for persistence in self.raised_by)
        entries += self.baseline.length if self.baseline else 0
        return MOST_BYTES // (_TRACK_BYTES + _ENTRY_BYTES * entries)

    def cause(self, key: str) -> str:
        """The cause of a key's alarm."""
        return f"{CAUSES}{self.name}/{key}"

    def severity(self, gravity: float) -> Severity:
        """The severity of a gravity; the lowest declared one below all limits."""
        reached = [severity for least, severity in self.severities if gravity >= least]
        return reached[-1] if reached else self.severities[0][1]


def conditions(config: Settings) -> list[Condition]:
    """The conditions that the active domains declare. Raises AlertError where a domain declares a kind twice."""
    declared = list(_declared_conditions(config))
    names = [condition.name for condition in declared]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise AlertError(f"alarm {twice[0]!r} is declared twice: rename one of them")
    return declared


def _declared_conditions(config: Settings) -> Iterator[Condition]:
    for module in modules(config, "alarms"):
        domain = module.__name__.split(".")[-2]
        for condition in module.ALARMS:
            yield replace(condition, domain=domain)


def largest_first(contributions: Mapping[str, float | None] | None) -> dict[str, float]:
    """The contributions to a score, by name, without nulls, the largest (of either sign) first."""
    rounded = {name: round(value, 4) for name, value in (contributions or {}).items() if value is not None}
    return dict(sorted(rounded.items(), key=lambda item: -abs(item[1])))
