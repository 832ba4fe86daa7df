"""Progress, not processes: which sources fell silent while their peers go on."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

NO_PROGRESS = "no progress for"
"""How each text begins that says of a source or a loop only that nothing moves."""
_EVERY_SECONDS = 5.0
_KEPT = 13
"""A minute of a source that is active all the time."""
_QUIET_SECONDS = 20.0
_GAPS = 4.0
_LEAST_RATE = 1.0
_PEER_SECONDS = 15.0
_LONGEST_SECONDS = 86_400.0


class Samples:
    """How many events there were at some moments at which there were more: so they still tell of a source's pace when
    it has been silent for long. Goes with a heartbeat into its file."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=_KEPT)

    def add(self, now: float, total: int) -> None:
        """Keeps one sample each five seconds, and always the last one that was higher than before."""
        if not self._samples:
            self._samples.append((now, total))
        elif total > self._samples[-1][1]:
            newest = len(self._samples) > 1 and now - self._samples[-2][0] < _EVERY_SECONDS
            if newest:
                self._samples[-1] = (now, total)
            else:
                self._samples.append((now, total))

    def content(self) -> list[tuple[float, int]]:
        return [(round(at, 1), total) for at, total in self._samples]


def stalled(sources: Mapping[str, Sequence[Sequence[Any]]], now: float) -> dict[str, str]:
    """The sources that fell silent, with the reason; `sources` are (time, total) by name, as `Samples` keeps them.

    A source is silent when it had at least one event a second, then none for twenty seconds and for four times its
    longest pause before; and it is reported only while another such source goes on: where all are silent, what they
    have in common is away, and says so itself. After a day, its silence is how it is.
    """
    paces = {name: pace for name, samples in sources.items() if (pace := _pace(samples)) is not None}
    quiet = {name: now - last for name, (_, _, last) in paces.items()}
    found = {}
    for name, (rate, pause, _) in paces.items():
        peers = any(other != name and quiet[other] < _PEER_SECONDS for other in paces)
        if peers and max(_QUIET_SECONDS, _GAPS * pause) < quiet[name] < _LONGEST_SECONDS:
            found[name] = f"{NO_PROGRESS} {quiet[name]:.0f} s: was {rate:,.0f} events/s; its peers go on"
    return found


def _pace(samples: Sequence[Sequence[Any]]) -> tuple[float, float, float] | None:
    """Events a second, the longest pause, and the time of the last event; None for a source that is slow."""
    if len(samples) < 3:
        return None
    times = [float(at) for at, _ in samples]
    lasted = times[-1] - times[0]
    rate = (samples[-1][1] - samples[0][1]) / lasted if lasted > 0 else 0.0
    pauses = [after - before for before, after in pairwise(times)]
    return (rate, max(pauses), times[-1]) if rate >= _LEAST_RATE else None
