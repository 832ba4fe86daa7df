"""Rate limits: token buckets for callers, and for addresses that try unknown keys."""

import time
from collections import OrderedDict

from city.web.problems import Problem

_MOST_CALLERS = 10_000
_LEAST_BURST = 10.0


class Buckets:
    """A bucket of tokens for each caller, refilled continuously. Of too many callers, those whose last request is the
    oldest are forgotten."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()

    def take(self, caller: str, rate: float) -> float:
        """Takes a token from the bucket of a caller.

        The bucket is refilled with `rate` tokens a second, and has room for those of one second (at least ten). Returns
        0, or the seconds until there is a token.
        """
        now, capacity = time.monotonic(), max(_LEAST_BURST, rate)
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = [capacity, now]
            if len(self._buckets) > _MOST_CALLERS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(caller)
        bucket[0] = min(capacity, bucket[0] + (now - bucket[1]) * rate)
        bucket[1] = now
        if bucket[0] < 1:
            return (1 - bucket[0]) / rate
        bucket[0] -= 1
        return 0.0


class FailedKeys:
    """Counts the unknown keys of each address.

    A request with a known key is answered, however many unknown keys its address has tried. A key of 256 random bits
    cannot be guessed, and a neighbour behind the same proxy must not be able to lock its owner out.
    """

    def __init__(self, a_minute: float) -> None:
        self._a_minute = a_minute
        self._buckets = Buckets()

    def count(self, client: str) -> None:
        """Counts an unknown key of an address. Raises Problem (429) where the address has tried too many."""
        if self._a_minute and (wait := self._buckets.take(client, self._a_minute / 60)):
            raise Problem(
                429,
                f"too many unknown keys from this address (more than {self._a_minute:g} a minute, "
                f"CITY_FAILED_KEYS_A_MINUTE): try again after {wait:.0f} s, with a key that `city keys list` shows",
                headers={"retry-after": retry_after(wait)},
            )


def retry_after(seconds: float) -> str:
    """The value of the header Retry-After: whole seconds, at least 1."""
    return str(max(1, round(seconds)))
