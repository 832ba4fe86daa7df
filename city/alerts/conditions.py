"""Conditions on the stream's messages that raise alarms: a domain's declarations, and the state machine of each.

A domain declares `ALARMS`, a tuple of `Condition`, in its alarms.py. A `Watch` takes the messages of one condition and
returns findings. It reads no clock and no store, so the same messages give the same findings. Its state is plain JSON,
so a reader that is killed continues from its last transaction.
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
"""The largest size of a watch's state, as JSON: 24,000 cells with an hour of two-minute windows each. No city has as
many cells of H3's resolution 9 (0.105 km²; Houston has 16,000)."""
_TRACK_BYTES, _ENTRY_BYTES = 200, 24
"""The size of a key's state, and of each level or value in it."""
_KEY_CHARACTERS, _NAME_CHARACTERS = 200, 80


@dataclass(frozen=True)
class Persistence:
    """Is fulfilled where `count` of a key's last `of` messages are at this level or above."""

    level: float
    count: int
    of: int


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The usual value of a key: the median of its last `length` values, once there are `least` of them.

    Values of abnormal messages are left out, so that the baseline does not follow an abnormal state. A state that has
    lasted for `accepted_after` is the new baseline.
    """

    value: Callable[[Message], float | None]
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
    """The message's field that names the machine, card or cell."""
    level: Callable[[Message, float | None], float | None]
    raised_by: tuple[Persistence, ...]
    clear_below: float
    calm_for: timedelta
    forgotten_after: timedelta
    title: Callable[[Message], str]
    detail: Callable[[Message], Mapping[str, Any]]
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
        """`<domain>/<kind>`."""
        return f"{self.domain}/{self.kind}"

    @property
    def most_keys(self) -> int:
        """How many keys a watch follows at once. A key without messages for `forgotten_after` is forgotten anyway."""
        entries = max(persistence.of for persistence in self.raised_by)
        entries += self.baseline.length if self.baseline else 0
        return MOST_BYTES // (_TRACK_BYTES + _ENTRY_BYTES * entries)

    def cause(self, key: str) -> str:
        """The cause of a key's alarm."""
        return f"{CAUSES}{self.name}/{key}"

    def severity(self, gravity: float) -> Severity:
        """The severity of a gravity; the lowest declared one below all limits."""
        reached = [severity for least, severity in self.severities if gravity >= least]
        return reached[-1] if reached else self.severities[0][1]


@dataclass
class Track:
    """A watch's state of one key. Times are seconds since the epoch."""

    partition: int
    levels: list[list[float]] = field(default_factory=list)
    """The last pairs [time, level], by time."""
    values: list[list[float]] = field(default_factory=list)
    """The last pairs [time, value] of the baseline, by time."""
    heard_at: float = 0.0
    high_at: float = 0.0
    """The time of the newest message at `clear_below` or above."""
    ended_at: float = 0.0
    """The alarm has ended up to this time: an older message that is repeated raises no alarm."""
    since: float | None = None
    """When the key's open alarm was raised; None while there is none."""
    told_at: float = 0.0
    """When the open alarm was last reported."""
    peak: float = 0.0
    """The highest gravity of the alarm, or of the messages that may raise one."""


class Watch:
    """Follows one condition over a topic's messages."""

    def __init__(self, condition: Condition, state: Mapping[str, Any] | None = None) -> None:
        """Continues from a `state` that another watch of the condition returned."""
        self.condition = condition
        self.overflowed = False
        """Whether a key was not followed because `most_keys` other keys are."""
        self.changed = False
        """Whether `state` may have changed since the reader last set this to False."""
        saved = state or {}
        self._tracks = {key: Track(**track) for key, track in saved.get("tracks", {}).items()}
        self._clocks = {int(partition): clock for partition, clock in saved.get("clocks", {}).items()}

    @property
    def state(self) -> dict[str, Any]:
        """Everything that another watch needs to continue, as JSON."""
        tracks = {key: vars(track) for key, track in self._tracks.items()}
        return {"tracks": tracks, "clocks": {str(partition): clock for partition, clock in self._clocks.items()}}

    @property
    def open(self) -> list[str]:
        """The keys whose alarm is open."""
        return [key for key, track in self._tracks.items() if track.since is not None]

    @property
    def keys(self) -> list[str]:
        """All keys that the watch follows."""
        return [*self._tracks]

    def forget(self, key: str) -> None:
        """Drops the state of a key. It returns no finding that ends the key's alarm."""
        self.changed |= self._tracks.pop(key, None) is not None

    def key(self, message: Message) -> str:
        """The key of a message. Raises ValueError for a key that is empty, too long, not printable or not a string."""
        key = message.get(self.condition.key)
        if not isinstance(key, str) or not 0 < len(key) <= _KEY_CHARACTERS or not key.isprintable():
            raise ValueError(
                f"field {self.condition.key!r}: got {str(key)[:50]!r}; expected up to {_KEY_CHARACTERS} characters"
            )
        return key

    def take(self, message: Message, partition: int, arrived: float) -> Finding | None:
        """Takes a message that arrived in `partition` at `arrived` (seconds since the epoch).

        Returns its finding; None where the message changes nothing. All messages of a key are in one partition, nearly
        in order.

        Raises whatever the condition's functions raise for a message that they cannot read. The watch is then
        unchanged.
        """
        condition, key = self.condition, self.key(message)
        # A sender's clock that is ahead must not keep an alarm open for years.
        at = min(_to_seconds(message[condition.time]), arrived)
        track = self._tracks.get(key) or Track(partition)
        value = condition.baseline.value(message) if condition.baseline else None
        level = condition.level(message, self._compute_baseline(track, at))
        finding: Finding | None = None
        gravity = 0.0
        if level is not None and level >= condition.clear_below:
            gravity = level if condition.gravity is None else condition.gravity(message)
            finding = self._make_finding(key, message, max(gravity, track.peak))
        self.changed = True
        self._clocks[partition] = clock = max(self._clocks.get(partition, 0.0), at)
        if at <= max(track.ended_at, clock - condition.forgotten_after.total_seconds()):
            return None
        track.partition, track.heard_at = partition, max(track.heard_at, at)
        self._update_baseline(track, value, at, level or 0.0)
        if level is not None:
            self._add_level(track, at, level)
        peak_before = track.peak
        if finding is not None:
            track.high_at, track.peak = max(track.high_at, at), max(track.peak, gravity)
        if not self._store_track(key, track) or level is None:
            return None
        if track.since is not None:
            if finding is not None:
                return self._repeat_alarm(track, finding, peak_before, at)
            return self._end_if_calm(key, track, at)
        if finding is None or not any(_is_fulfilled(persistence, track.levels) for persistence in condition.raised_by):
            return None
        track.since = track.told_at = at
        return finding

    def pass_time(self) -> list[Finding]:
        """Ends alarms without a message at `clear_below` or above for too long, and forgets keys without messages.

        Time passes by the event times of the partition. Returns the findings that end alarms.
        """
        ended = []
        patience = self.condition.forgotten_after.total_seconds()
        for key, track in list(self._tracks.items()):
            clock = self._clocks.get(track.partition, 0.0)
            if track.since is not None and clock - track.high_at >= patience:
                ended.append(self._end_alarm(key, track))
            if track.since is None and clock - track.heard_at >= patience:
                del self._tracks[key]
                self.changed = True
        self.changed |= bool(ended)
        self.overflowed = self.overflowed and len(self._tracks) >= self.condition.most_keys
        return ended

    def _repeat_alarm(self, track: Track, finding: Finding, peak_before: float, at: float) -> Finding | None:
        """The finding of an alarm that lasts: every `repeat_every`, and at once where its severity rose."""
        graver = self.condition.severity(peak_before) != finding.severity
        if not graver and at - track.told_at < self.condition.repeat_every.total_seconds():
            return None
        track.told_at = max(track.told_at, at)
        return finding

    def _end_if_calm(self, key: str, track: Track, at: float) -> Finding | None:
        if at - track.high_at < self.condition.calm_for.total_seconds():
            return None
        return self._end_alarm(key, track)

    def _end_alarm(self, key: str, track: Track) -> Finding:
        track.ended_at, track.since, track.peak, track.levels = max(track.heard_at, track.high_at), None, 0.0, []
        return Finding(self.condition.cause(key), state="passing")

    def _make_finding(self, key: str, message: Message, peak: float) -> Finding:
        condition = self.condition
        return Finding(
            cause=condition.cause(key),
            severity=condition.severity(peak),
            title=condition.title(message),
            group=condition.name,
            detail=dict(condition.detail(message)),
            labels={condition.key: key, "type": condition.type or condition.kind},
        )

    def _store_track(self, key: str, track: Track) -> bool:
        """Stores the track of a key, or drops it.

        Returns whether the key is followed. It is not where all its messages are calm, or where too many other keys
        are followed.
        """
        calm = all(level < self.condition.clear_below for _, level in track.levels)
        if calm and track.since is None:
            track.peak = 0.0
        # Until then a repeated old message is recognized by `ended_at`, and after that by its age.
        over = track.heard_at - track.ended_at >= self.condition.forgotten_after.total_seconds()
        if calm and over and track.since is None and not track.values:
            self._tracks.pop(key, None)
            return False
        if key not in self._tracks and len(self._tracks) >= self.condition.most_keys:
            # The key without an alarm whose last message is the oldest. It is near the front, because each message
            # moves its key to the end.
            idle = next((name for name, other in self._tracks.items() if other.since is None), None)
            self.overflowed = idle is None
            if idle is None:
                return False
            del self._tracks[idle]
        self._tracks.pop(key, None)
        self._tracks[key] = track
        return True

    def _add_level(self, track: Track, at: float, level: float) -> None:
        longest = max(persistence.of for persistence in self.condition.raised_by)
        newest = max(track.heard_at, at)
        first = newest - self.condition.forgotten_after.total_seconds()
        others = [entry for entry in track.levels if entry[0] != at and entry[0] > first]
        track.levels = sorted([*others, [at, round(level, 4)]])[-longest:]

    def _compute_baseline(self, track: Track, at: float) -> float | None:
        """The median of the values before a time; None where there is no baseline, or too few values."""
        baseline = self.condition.baseline
        if baseline is None:
            return None
        values = [value for time, value in track.values if time < at]
        return median(values) if len(values) >= baseline.least else None

    def _update_baseline(self, track: Track, value: float | None, at: float, level: float) -> None:
        baseline = self.condition.baseline
        if baseline is None or value is None:
            return
        # A newer message of the same window replaces its value, also where the newer message is abnormal.
        values = [entry for entry in track.values if entry[0] != at]
        accepted = track.since is not None and at - track.since >= baseline.accepted_after.total_seconds()
        if level < self.condition.clear_below or accepted:
            values = sorted([*values, [at, round(value, 2)]])[-baseline.length :]
        track.values = values


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


def _is_fulfilled(persistence: Persistence, levels: list[list[float]]) -> bool:
    newest = levels[-persistence.of :]
    return sum(level >= persistence.level for _, level in newest) >= persistence.count


def _to_seconds(time: Any) -> float:
    """The seconds since the epoch of an ISO 8601 time. A time without a zone is in UTC."""
    moment = datetime.fromisoformat(time)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
