"""Writes the state of a small process (a bridge, a simulator) to <home>/run/<name>.json once a second.

The file has the process's event counts and its workers.
"""

import json
import logging
import os
import threading
import time
from collections import deque

from city.settings import Settings
from city.stack.progress import Samples
from city.stack.state import identity
from city.stack.worker import summaries

log = logging.getLogger(__name__)

_HORIZON = 10.0


class Heartbeat:
    """Counts events and writes the heartbeat file. `count` is safe to call from any thread.

    `error` is the current error, or None. `is_loop` is for a loop in a process that has a heartbeat of its own: that
    heartbeat reports the workers.
    """

    def __init__(self, config: Settings, name: str, is_loop: bool = False) -> None:
        self.error: str | None = None
        self._path = config.run / f"{name}.json"
        self._is_loop = is_loop
        self._lock = threading.Lock()
        self._total = 0
        self._written = 0.0
        self._totals: deque[tuple[float, int]] = deque(maxlen=int(_HORIZON) + 1)
        self._samples = Samples()
        self._identity = identity()

    def count(self, events: int) -> None:
        """Adds `events` to the total."""
        with self._lock:
            self._total += events

    def beat(self, lag: int | None = None, **more: object) -> None:
        """Writes the file when a second has passed since the last write.

        `lag` is a number of messages. `more` are further JSON values for `city status`.
        """
        now = time.time()
        if now - self._written < 1.0:
            return
        self._written = now
        self._totals.append((now, self._total))
        self._samples.add(now, self._total)
        content = {
            **self._identity,
            "at": now,
            "events": self._total,
            "events_per_second": self._measure_rate(),
            "lag": lag,
            "last_error": self.error,
            "samples": self._samples.content(),
            "workers": [] if self._is_loop else summaries(),
            **more,
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(content))
            fresh.replace(self._path)
        except OSError as error:  # a full disk must not end the process; readers notice that the file is old
            log.warning("cannot write %s: %s", self._path, error)

    def _measure_rate(self) -> float:
        (first, before), (last, after) = self._totals[0], self._totals[-1]
        return round((after - before) / (last - first), 1) if last > first else 0.0
