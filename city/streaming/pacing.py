"""How long events gather before a micro-batch: as long as the promised latency allows, for what a batch costs hardly
depends on how many events it has."""

from collections import deque

import numpy as np

_USED = 0.8  # of the promise is planned for; the rest is for what the machine does otherwise
_AIM = 0.9  # of the promise is what a measured 95th percentile may come to
_LEAST_SECONDS = 0.02
_REMEMBERED = 64


class Pacing:
    """Plans the gathering time of one stream, from what its batches took.

    An event waits for its batch for up to the gathering time, at the 95th percentile for 0.95 of it; then it takes its
    way to Kafka and through the pipeline. So the gathering time is what the promise leaves, but never less than a
    batch takes: under load, smaller batches would only add to the load. The 95th percentiles of the parts do not add up
    to that of the whole, so what is measured corrects the plan, slowly upwards and at once downwards.
    """

    def __init__(self, promise: float) -> None:
        """`promise` is the wanted 95th percentile from an event to its sinks, in seconds."""
        self.promise = promise
        self._overheads: deque[float] = deque([promise / 5], maxlen=_REMEMBERED)
        self._transits: deque[float] = deque([promise / 10], maxlen=_REMEMBERED)
        self._correction = 0.0
        self.seconds = self._planned()

    @property
    def fetch_seconds(self) -> float:
        """How long the broker may hold a fetch back for more to come."""
        return min(0.1, self.promise / 10)

    def arrived(self, seconds: float) -> None:
        """A batch's median time from an event to Kafka. What comes later than promised is the source's own delay."""
        if 0 <= seconds < self.promise:
            self._transits.append(seconds)
            self.seconds = self._planned()

    def applied(self, seconds: float) -> None:
        """A sink has applied a batch so long after it was read from Kafka."""
        self._overheads.append(seconds)
        self.seconds = self._planned()

    def measured(self, p95: float) -> None:
        """The 95th percentile from an event to the slowest of the prompt sinks, in seconds, of the last while. Call it
        every second."""
        miss = _AIM * self.promise - p95
        step = min(miss / 10, self.promise / 50) if miss > 0 else miss / 4
        self._correction = min(max(self._correction + step, 0.0), self.promise / 3)
        self.seconds = self._planned()

    def _planned(self) -> float:
        overhead = float(np.quantile(self._overheads, 0.95))
        transit = float(np.median(self._transits)) + self.fetch_seconds
        left = (_USED * self.promise - transit - overhead) / 0.95 + self._correction
        return min(max(left, overhead, _LEAST_SECONDS), self.promise)
