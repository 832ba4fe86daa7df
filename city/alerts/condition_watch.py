"""Follows one condition over a topic's messages, and returns the findings that raise and end its alarms.

A watch reads no clock and no store, so the same messages give the same findings. Its state is plain JSON, so a reader
that is killed continues from its last transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any

from city.alerts.conditions import Condition, Message, Persistence
from city.alerts.model import Finding

_KEY_CHARACTERS = 200


@dataclass
class Track:
    """A watch's state of one key. Times are seconds since the epoch."""

    partition: int
    """The Kafka partition of the key's messages."""
    levels: list[list[float]] = field(default_factory=list)
    """The last pairs [time, level], by time."""
    values: list[list[float]] = field(default_factory=list)
    """The last pairs [time, value] of the baseline, by time."""
    heard_at: float = 0.0
    """The event time of the key's newest message."""
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


class ConditionWatch:
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
    def state(self) -> dict[str, object]:
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
        longest = max(persistence.messages for persistence in self.condition.raised_by)
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


def _is_fulfilled(persistence: Persistence, levels: list[list[float]]) -> bool:
    newest = levels[-persistence.messages :]
    return sum(level >= persistence.level for _, level in newest) >= persistence.count


def _to_seconds(time: str) -> float:
    """The seconds since the epoch of an ISO 8601 time. A time without a zone is in UTC."""
    moment = datetime.fromisoformat(time)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
