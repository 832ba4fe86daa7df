"""Detects sources that fell silent while their peers go on. It judges progress, not processes."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise

NO_PROGRESS = "no progress for"
"""The beginning of each error text that reports only a lack of progress of a source or a loop."""
_EVERY_SECONDS = 5.0
_KEPT = 13
"""The number of samples: one minute of a source that is active all the time."""
_QUIET_SECONDS = 20.0
_GAPS = 4.0
_LEAST_RATE = 1.0
_PEER_SECONDS = 15.0
_LONGEST_SECONDS = 86_400.0


class Samples:
    """Samples the total of events at some of the times at which it grew.

    So the samples still show the pace of a source that has been silent for long. A heartbeat writes them to its file.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=_KEPT)

    def add(self, now: float, total: int) -> None:
        """Stores one sample each five seconds, and always the last one that was higher than before."""
        if not self._samples:
            self._samples.append((now, total))
        elif total > self._samples[-1][1]:
            newest = len(self._samples) > 1 and now - self._samples[-2][0] < _EVERY_SECONDS
            if newest:
                self._samples[-1] = (now, total)
            else:
                self._samples.append((now, total))

    def content(self) -> list[tuple[float, int]]:
        """Returns the samples as JSON values: (seconds since the epoch, total)."""
        return [(round(at, 1), total) for at, total in self._samples]


def stalled_sources(sources: Mapping[str, Sequence[tuple[float, int]]], now: float) -> dict[str, str]:
    """Returns the sources that fell silent, with the reason. `sources` are `Samples` as (time, total), by name.

    A source is silent when it had at least one event a second, and then none for twenty seconds and for four times its
    longest earlier pause. It is reported only while another such source goes on. Where all sources are silent, their
    common server is unavailable, and its own error reports that. After a day a silent source is no longer reported.
    """
    paces = {name: pace for name, samples in sources.items() if (pace := _measure_pace(samples)) is not None}
    quiet = {name: now - last for name, (_, _, last) in paces.items()}
    reasons = {}
    for name, (rate, pause, _) in paces.items():
        peers = any(other != name and quiet[other] < _PEER_SECONDS for other in paces)
        if peers and max(_QUIET_SECONDS, _GAPS * pause) < quiet[name] < _LONGEST_SECONDS:
            reasons[name] = f"{NO_PROGRESS} {quiet[name]:.0f} s: was {rate:,.0f} events/s; its peers go on"
    return reasons


def _measure_pace(samples: Sequence[tuple[float, int]]) -> tuple[float, float, float] | None:
    """Returns events a second, the longest pause, and the time of the last event; None for a slow source."""
    if len(samples) < 3:
        return None
    times = [float(at) for at, _ in samples]
    duration = times[-1] - times[0]
    rate = (samples[-1][1] - samples[0][1]) / duration if duration > 0 else 0.0
    pauses = [after - before for before, after in pairwise(times)]
    return (rate, max(pauses), times[-1]) if rate >= _LEAST_RATE else None
