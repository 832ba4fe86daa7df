"""Simulates the faults of sensors and networks, each with its own rate, from a seed."""

import json
import random
from dataclasses import dataclass, fields
from typing import Any

Event = dict[str, Any]
DEFAULT_FAULTS = 0.05
"""The default share of a bad day's faults. A city that works well has it, and the quality limits are set for it.

The share applies to messages, to the faults and missed services of machines, and to frauds. With it, a person has to
look at a few alarms an hour.
"""


@dataclass(frozen=True)
class FaultRates:
    """The probability of each fault for an event.

    `stuck` and `drifting` are probabilities for a sensor, for its whole life. `scaled(1.0)` is a bad day, on which a
    fault affects about a tenth of all events.
    """

    spike: float = 0.0
    drop_out: float = 0.0
    duplicate: float = 0.0
    out_of_order: float = 0.0
    malformed: float = 0.0
    stuck: float = 0.0
    drifting: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise ValueError(f"fault rate {field.name}={getattr(self, field.name)} is not between 0 and 1")

    @classmethod
    def scaled(cls, share: float) -> "FaultRates":
        """Returns the rates of all faults at a share of a bad day.

        A `share` of 0 has no faults. A share of 1 affects about a tenth of all events.
        """
        base = cls(0.01, 0.02, 0.02, 0.03, 0.02, 0.02, 0.05)
        return cls(**{f.name: min(1.0, getattr(base, f.name) * share) for f in fields(cls)})


class Faults:
    """Turns events into the messages that arrive. Some are lost, duplicated, delayed or malformed."""

    def __init__(self, rates: FaultRates, seed: int, spiked: str | None = None, factor: float = 20.0) -> None:
        """Sets the rates and the seed. `spiked` is the field that a spike multiplies by `factor`."""
        self.rates = rates
        self._random = random.Random(seed)
        self._spiked, self._factor = spiked, factor
        self._delayed: list[bytes] = []

    def messages(self, events: list[Event]) -> list[bytes]:
        """Returns the messages of one moment's events, followed by the messages that were delayed before."""
        delayed, self._delayed = self._delayed, []
        messages: list[bytes] = []
        for event in events:
            if self._happens(self.rates.drop_out):
                continue
            if self._spiked and self._happens(self.rates.spike):
                event = event | {self._spiked: event[self._spiked] * self._factor}
            message = json.dumps(event, ensure_ascii=False).encode()
            if self._happens(self.rates.malformed):
                message = self._break_message(event, message)
            if self._happens(self.rates.out_of_order):
                self._delayed.append(message)
                continue
            messages.append(message)
            if self._happens(self.rates.duplicate):
                messages.append(message)
        return messages + delayed

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._random.random() < rate

    def _break_message(self, event: Event, message: bytes) -> bytes:
        kind = self._random.randrange(6)
        name = self._random.choice(sorted(event))
        if kind == 0:
            return message[: len(message) // 2]
        if kind == 1:
            return json.dumps({k: v for k, v in event.items() if k != name}).encode()
        if kind == 2:
            return json.dumps(event | {name: [1, 2]}).encode()
        if kind == 3:
            return json.dumps(event | {"debug": True}).encode()
        if kind == 4:
            return json.dumps(event | {name: float("nan")}).encode()
        return message[:-1] + b"\xff\xfe}"
