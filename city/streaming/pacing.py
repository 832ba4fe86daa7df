"""Plans how long events gather before a micro-batch.

They gather for as long as the promised latency allows, because the cost of a batch hardly depends on its size.
"""

from collections import deque

import numpy as np

_USED = 0.8  # the planned share of the promise; the rest is for other load of the machine
_AIM = 0.9  # the share of the promise that a measured 95th percentile may reach
_LEAST_SECONDS = 0.02
_REMEMBERED = 64


class Pacing:
    """Plans the gathering time of one stream from the measured times of its batches.

    An event waits for its batch for up to the gathering time; the 95th percentile of the wait is 0.95 of it. The rest
    of its latency is the way to Kafka and through the pipeline. So the gathering time is what the promise leaves. It is
    never less than the time of a batch, because smaller batches only add to the load. The 95th percentiles of the parts
    do not add up to the 95th percentile of the whole, so the measured latency corrects the plan: slowly upwards, and at
    once downwards.
    """

    def __init__(self, promise: float) -> None:
        """`promise` is the target for the 95th percentile of the time from an event to its sinks, in seconds."""
        self.promise = promise
        self._overheads: deque[float] = deque([promise / 5], maxlen=_REMEMBERED)
        self._transits: deque[float] = deque([promise / 10], maxlen=_REMEMBERED)
        self._correction = 0.0
        self.seconds = self._plan_seconds()

    @property
    def fetch_seconds(self) -> float:
        """The time for which the broker may delay a fetch to gather messages, in seconds."""
        return min(0.1, self.promise / 10)

    def add_transit(self, seconds: float) -> None:
        """Records a batch's median time from an event to Kafka, in seconds.

        A time above the promise is the source's own delay and is ignored.
        """
        if 0 <= seconds < self.promise:
            self._transits.append(seconds)
            self.seconds = self._plan_seconds()

    def add_overhead(self, seconds: float) -> None:
        """Records the time from the read of a batch from Kafka until a sink has applied it, in seconds."""
        self._overheads.append(seconds)
        self.seconds = self._plan_seconds()

    def correct(self, p95: float) -> None:
        """Corrects the plan by the recent 95th percentile from an event to the slowest prompt sink, in seconds.

        Call it every second.
        """
        miss = _AIM * self.promise - p95
        step = min(miss / 10, self.promise / 50) if miss > 0 else miss / 4
        self._correction = min(max(self._correction + step, 0.0), self.promise / 3)
        self.seconds = self._plan_seconds()

    def _plan_seconds(self) -> float:
        overhead = float(np.quantile(self._overheads, 0.95))
        transit = float(np.median(self._transits)) + self.fetch_seconds
        remaining = (_USED * self.promise - transit - overhead) / 0.95 + self._correction
        return min(max(remaining, overhead, _LEAST_SECONDS), self.promise)
