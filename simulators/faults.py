"""What goes wrong with real sensors and networks, each at a rate of its own, seeded."""

import json
import random
from dataclasses import dataclass, fields
from typing import Any

Event = dict[str, Any]
DEFAULT_FAULTS = 0.05
"""The share of a bad day's faults. The limits of quality are for what a city that works well has, and that is this.

It holds for messages, for the faults and missed services of machines and for frauds, so that what a person has to look
at in a default city is a few things an hour.
"""


@dataclass(frozen=True)
class FaultRates:
    """The probability of each fault for an event (`stuck` and `drifting`: for a sensor, for its whole life).

    `scaled(1.0)` is a bad day: a tenth of all events affected in some way.
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
        """All faults at once; `share` of 0 has none, 1 has about one event in ten affected."""
        base = cls(0.01, 0.02, 0.02, 0.03, 0.02, 0.02, 0.05)
        return cls(**{f.name: min(1.0, getattr(base, f.name) * share) for f in fields(cls)})


class Faults:
    """Turns events into the messages that arrive: some are lost, some come twice, late or broken."""

    def __init__(self, rates: FaultRates, seed: int, spiked: str | None = None, factor: float = 20.0) -> None:
        """`spiked` is the field that a spike multiplies by `factor`."""
        self.rates = rates
        self._random = random.Random(seed)
        self._spiked, self._factor = spiked, factor
        self._held: list[bytes] = []

    def messages(self, events: list[Event]) -> list[bytes]:
        """The messages of one moment, with what was held back before."""
        held, self._held = self._held, []
        found: list[bytes] = []
        for event in events:
            if self._happens(self.rates.drop_out):
                continue
            if self._spiked and self._happens(self.rates.spike):
                event = event | {self._spiked: event[self._spiked] * self._factor}
            message = json.dumps(event, ensure_ascii=False).encode()
            if self._happens(self.rates.malformed):
                message = self._broken(event, message)
            if self._happens(self.rates.out_of_order):
                self._held.append(message)
                continue
            found.append(message)
            if self._happens(self.rates.duplicate):
                found.append(message)
        return found + held

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._random.random() < rate

    def _broken(self, event: Event, message: bytes) -> bytes:
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
