"""Conditions on the stream's messages that raise alarms: what a domain declares, and the state machine that follows it.

A domain declares `ALARMS`, a tuple of `Condition`, in its alarms.py. A `Watch` takes one condition's messages and gives
findings. It reads no clock and no store: the same messages give the same findings, and its state is plain JSON, so a
reader that is killed goes on from where its last transaction was.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from city.alerts.model import AlertError, Finding
from city.contracts.registry import modules
from city.settings import Settings
from city.severity import Severity

Message = Mapping[str, Any]
CAUSES = "domain/"
MOST_BYTES = 24_000_000
"""Of a watch's state, as JSON: of 24,000 cells with an hour of two-minute windows each. No city has as many of H3's
resolution 9 (0.105 km²; Houston has 16,000)."""
_TRACK_BYTES, _ENTRY_BYTES = 200, 24
"""Of a key's state, and of each level or value in it."""
_KEY_CHARACTERS, _NAME_CHARACTERS = 200, 80


@dataclass(frozen=True)
class Persistence:
    """Holds where `count` of a key's last `of` messages are at this level or above."""

    level: float
    count: int
    of: int


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What is usual for a key: the median of its last `length` values, once there are `least` of them.

    Values of abnormal messages are left out, so that what is usual does not follow what is wrong; but what has lasted
    for `accepted_after` is the new usual.
    """

    value: Callable[[Message], float | None]
    length: int
    least: int
    accepted_after: timedelta = timedelta(hours=3)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One kind of alarm of a domain, on the messages of one topic. Each key has at most one open alarm of the kind.

    `level` says how far a message is: 1 is the limit, more is worse, None says nothing about the condition. Its second
    argument is what is usual for the key; None where nothing is declared or known. The alarm is raised when any of
    `raised_by` holds, and ends when no message has been at `clear_below` or above for `calm_for` and a calm one says
    so, or when none has been for `forgotten_after`, whether or not the key is still heard of. Both times are of events
    in the key's partition: where the stream itself is silent, nothing is known and nothing ends.
    """

    kind: str
    description: str
    topic: str
    key: str
    """The message's field that names the machine, card or cell."""
    level: Callable[[Message, float | None], float | None]
    raised_by: tuple[Persistence, ...]
    clear_below: float
    calm_for: timedelta
    forgotten_after: timedelta
    title: Callable[[Message], str]
    detail: Callable[[Message], Mapping[str, Any]]
    severities: tuple[tuple[float, Severity], ...] = ((1.0, "warning"),)
    """From which gravity on which severity, ascending. It rises while an alarm lasts, and does not fall."""
    gravity: Callable[[Message], float] | None = None
    """What the severity follows from; the level where it is None."""
    type: str = ""
    """The label `type`; the kind where empty."""
    time: str = "timestamp"
    """The message's field with the time of its event. A message replaces the one of the same key and time."""
    baseline: Baseline | None = None
    repeat_every: timedelta = timedelta(minutes=1)
    domain: str = ""
    """Set when it is discovered."""
    only: str = ""
    """Where a topic carries several kinds of messages: the field `kind` of those that the condition is about."""

    def __post_init__(self) -> None:
        if not self.raised_by or any(not 0 < p.count <= p.of for p in self.raised_by):
            raise AlertError(f"alarm {self.kind!r}: raised_by needs persistences with 0 < count <= of")
        if self.clear_below > min(persistence.level for persistence in self.raised_by):
            raise AlertError(f"alarm {self.kind!r}: clear_below must not be above the level that raises it")
        if self.calm_for > self.forgotten_after:
            raise AlertError(f"alarm {self.kind!r}: calm_for must not be longer than forgotten_after")
        if len(self.name) > _NAME_CHARACTERS:
            raise AlertError(f"alarm {self.name!r} has a name of {len(self.name)} characters: use {_NAME_CHARACTERS}")

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.kind}"

    @property
    def most_keys(self) -> int:
        """Keys that a watch follows at once. Those that are unheard of for `forgotten_after` are forgotten anyway."""
        entries = max(persistence.of for persistence in self.raised_by)
        entries += self.baseline.length if self.baseline else 0
        return MOST_BYTES // (_TRACK_BYTES + _ENTRY_BYTES * entries)

    def cause(self, key: str) -> str:
        return f"{CAUSES}{self.name}/{key}"

    def severity(self, gravity: float) -> Severity:
        reached = [severity for least, severity in self.severities if gravity >= least]
        return reached[-1] if reached else self.severities[0][1]


@dataclass
class Track:
    """What a watch keeps of one key. Times are seconds since the epoch."""

    partition: int
    levels: list[list[float]] = field(default_factory=list)
    """The last [time, level], by time."""
    values: list[list[float]] = field(default_factory=list)
    """The last [time, value] of the baseline, by time."""
    heard_at: float = 0.0
    high_at: float = 0.0
    """The newest message at `clear_below` or above."""
    ended_at: float = 0.0
    """Up to here it has ended: an older message that comes once more raises nothing."""
    since: float | None = None
    """When its open alarm was raised; None while there is none."""
    told_at: float = 0.0
    peak: float = 0.0
    """The highest gravity of the alarm, or of what may become one."""


class Watch:
    """Follows one condition over a topic's messages."""

    def __init__(self, condition: Condition, state: Mapping[str, Any] | None = None) -> None:
        """Goes on from a `state` that another watch of the condition gave."""
        self.condition = condition
        self.overflowed = False
        """Whether a key was not followed because `most_keys` others are."""
        self.changed = False
        """Whether `state` may be another than when its reader last set this to False."""
        saved = state or {}
        self._tracks = {key: Track(**track) for key, track in saved.get("tracks", {}).items()}
        self._clocks = {int(partition): clock for partition, clock in saved.get("clocks", {}).items()}

    @property
    def state(self) -> dict[str, Any]:
        """All that another watch needs to go on, as JSON."""
        tracks = {key: vars(track) for key, track in self._tracks.items()}
        return {"tracks": tracks, "clocks": {str(partition): clock for partition, clock in self._clocks.items()}}

    @property
    def open(self) -> list[str]:
        """The keys whose alarm is open."""
        return [key for key, track in self._tracks.items() if track.since is not None]

    @property
    def keys(self) -> list[str]:
        """All keys that it follows."""
        return [*self._tracks]

    def forget(self, key: str) -> None:
        """Drops all that it keeps of a key. It gives no end of the key's alarm."""
        self.changed |= self._tracks.pop(key, None) is not None

    def key(self, message: Message) -> str:
        """Raises ValueError for a key that names nothing."""
        key = message.get(self.condition.key)
        if not isinstance(key, str) or not 0 < len(key) <= _KEY_CHARACTERS or not key.isprintable():
            raise ValueError(
                f"field {self.condition.key!r}: got {str(key)[:50]!r}; expected up to {_KEY_CHARACTERS} characters"
            )
        return key

    def take(self, message: Message, partition: int, arrived: float) -> Finding | None:
        """The finding of a message that came by `partition` at `arrived` (seconds since the epoch); None where it
        changes nothing. A key's messages come by one partition, nearly in order.

        Raises whatever the condition's functions raise for a message that they do not understand; the watch is then
        as it was before.
        """
        condition, key = self.condition, self.key(message)
        # A clock that is ahead must not keep an alarm open for years.
        at = min(_seconds(message[condition.time]), arrived)
        track = self._tracks.get(key) or Track(partition)
        value = condition.baseline.value(message) if condition.baseline else None
        level = condition.level(message, self._usual(track, at))
        finding: Finding | None = None
        gravity = 0.0
        if level is not None and level >= condition.clear_below:
            gravity = level if condition.gravity is None else condition.gravity(message)
            finding = self._finding(key, message, max(gravity, track.peak))
        self.changed = True
        self._clocks[partition] = clock = max(self._clocks.get(partition, 0.0), at)
        if at <= max(track.ended_at, clock - condition.forgotten_after.total_seconds()):
            return None
        track.partition, track.heard_at = partition, max(track.heard_at, at)
        self._learn(track, value, at, level or 0.0)
        if level is not None:
            self._put(track, at, level)
        peak_before = track.peak
        if finding is not None:
            track.high_at, track.peak = max(track.high_at, at), max(track.peak, gravity)
        if not self._keep(key, track) or level is None:
            return None
        if track.since is not None:
            if finding is not None:
                return self._repeated(track, finding, peak_before, at)
            return self._calmed(key, track, at)
        if finding is None or not any(_holds(persistence, track.levels) for persistence in condition.raised_by):
            return None
        track.since = track.told_at = at
        return finding

    def pass_time(self) -> list[Finding]:
        """Ends what has not been heard of for too long, by the events that came meanwhile, and forgets such keys."""
        ended = []
        patience = self.condition.forgotten_after.total_seconds()
        for key, track in list(self._tracks.items()):
            clock = self._clocks.get(track.partition, 0.0)
            if track.since is not None and clock - track.high_at >= patience:
                ended.append(self._end(key, track))
            if track.since is None and clock - track.heard_at >= patience:
                del self._tracks[key]
                self.changed = True
        self.changed |= bool(ended)
        self.overflowed = self.overflowed and len(self._tracks) >= self.condition.most_keys
        return ended

    def _repeated(self, track: Track, finding: Finding, peak_before: float, at: float) -> Finding | None:
        """What is told of an alarm that lasts: now and then, and at once where it has become graver."""
        graver = self.condition.severity(peak_before) != finding.severity
        if not graver and at - track.told_at < self.condition.repeat_every.total_seconds():
            return None
        track.told_at = max(track.told_at, at)
        return finding

    def _calmed(self, key: str, track: Track, at: float) -> Finding | None:
        if at - track.high_at < self.condition.calm_for.total_seconds():
            return None
        return self._end(key, track)

    def _end(self, key: str, track: Track) -> Finding:
        track.ended_at, track.since, track.peak, track.levels = max(track.heard_at, track.high_at), None, 0.0, []
        return Finding(self.condition.cause(key), state="passing")

    def _finding(self, key: str, message: Message, peak: float) -> Finding:
        condition = self.condition
        return Finding(
            cause=condition.cause(key),
            severity=condition.severity(peak),
            title=condition.title(message),
            group=condition.name,
            detail=dict(condition.detail(message)),
            labels={condition.key: key, "type": condition.type or condition.kind},
        )

    def _keep(self, key: str, track: Track) -> bool:
        """Whether the key is followed: not where all its messages are calm, or where too many others are followed."""
        calm = all(level < self.condition.clear_below for _, level in track.levels)
        if calm and track.since is None:
            track.peak = 0.0
        # Up to then repeats of old messages are told by its end, and after that by their age.
        over = track.heard_at - track.ended_at >= self.condition.forgotten_after.total_seconds()
        if calm and over and track.since is None and not track.values:
            self._tracks.pop(key, None)
            return False
        if key not in self._tracks and len(self._tracks) >= self.condition.most_keys:
            # The longest unheard of without an alarm; it is near the front, for whoever is heard of goes to the end.
            idle = next((name for name, other in self._tracks.items() if other.since is None), None)
            self.overflowed = idle is None
            if idle is None:
                return False
            del self._tracks[idle]
        self._tracks.pop(key, None)
        self._tracks[key] = track
        return True

    def _put(self, track: Track, at: float, level: float) -> None:
        longest = max(persistence.of for persistence in self.condition.raised_by)
        newest = max(track.heard_at, at)
        first = newest - self.condition.forgotten_after.total_seconds()
        kept = [entry for entry in track.levels if entry[0] != at and entry[0] > first]
        track.levels = sorted([*kept, [at, round(level, 4)]])[-longest:]

    def _usual(self, track: Track, at: float) -> float | None:
        """The median of the values before that time."""
        baseline = self.condition.baseline
        if baseline is None:
            return None
        values = [value for time, value in track.values if time < at]
        return median(values) if len(values) >= baseline.least else None

    def _learn(self, track: Track, value: float | None, at: float, level: float) -> None:
        baseline = self.condition.baseline
        if baseline is None or value is None:
            return
        # What a window was before its last message is replaced, also where that message is abnormal.
        kept = [entry for entry in track.values if entry[0] != at]
        accepted = track.since is not None and at - track.since >= baseline.accepted_after.total_seconds()
        if level < self.condition.clear_below or accepted:
            kept = sorted([*kept, [at, round(value, 2)]])[-baseline.length :]
        track.values = kept


def conditions(config: Settings) -> list[Condition]:
    """What the active domains declare. Raises AlertError where a domain declares a kind twice."""
    declared = list(_declared(config))
    names = [condition.name for condition in declared]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise AlertError(f"alarm {twice[0]!r} is declared twice: rename one of them")
    return declared


def _declared(config: Settings) -> Iterator[Condition]:
    for module in modules(config, "alarms"):
        domain = module.__name__.split(".")[-2]
        for condition in module.ALARMS:
            yield replace(condition, domain=domain)


def largest_first(contributions: Mapping[str, float | None] | None) -> dict[str, float]:
    """What contributes to a score, by name, the largest share (of either sign) first."""
    known = {name: round(value, 4) for name, value in (contributions or {}).items() if value is not None}
    return dict(sorted(known.items(), key=lambda item: -abs(item[1])))


def _holds(persistence: Persistence, levels: list[list[float]]) -> bool:
    newest = levels[-persistence.of :]
    return sum(level >= persistence.level for _, level in newest) >= persistence.count


def _seconds(time: Any) -> float:
    """Of an ISO 8601 time; in UTC where it names no zone."""
    moment = datetime.fromisoformat(time)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
