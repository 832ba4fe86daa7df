"""Waits between attempts: exponential backoff with jitter, which a stop ends at once."""

import random
import threading


class Stopped(Exception):
    """A stop was requested while the work waited."""


class Backoff:
    """Waits 0.2 s, 0.4 s, … up to `longest`, each shortened at random by up to half."""

    def __init__(self, stop: threading.Event, longest: float = 15.0) -> None:
        self._stop = stop
        self._longest = longest
        self._next = 0.2

    def wait(self) -> None:
        """Waits before the next attempt. Raises Stopped when the stop comes first."""
        seconds = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._next * 2, self._longest)
        if self._stop.wait(seconds):
            raise Stopped

    def reset(self) -> None:
        """Starts again with the shortest wait."""
        self._next = 0.2
