"""Simulates card payments by owners with habits, payments by thieves, and the chargebacks that follow."""

import heapq
import json
import math
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from city.settings import Settings
from city.streaming.heartbeat import Heartbeat
from city_assets.payments.contract import CATEGORIES, CHARGEBACKS, PAYMENTS, REPORTED_WITHIN
from simulators.clock import UTC_CLOCK, LocalClock, Progress, ignore, iso
from simulators.faults import DEFAULT_FAULTS, FaultRates, Faults
from simulators.to_kafka import send

DEFAULT_RATE = 10.0
SECONDS_BETWEEN = 150.0
"""The mean time between two payments of a card. An hour corresponds to days of a real card."""
FRAUDS_PER_CARD_HOUR = 0.06
"""The rate of frauds on a bad day."""
_REPORTED_AFTER = 360.0  # seconds, on average: in reality this takes days
_CITY = (40.72, -73.99)


@dataclass
class Card:
    """Simulates one card with its owner's home (degrees), usual amount (USD), devices and categories."""

    number: int
    chance: random.Random
    clock: LocalClock = UTC_CLOCK
    id: str = field(init=False)

    def __post_init__(self) -> None:
        self.id = f"card_{self.number:05d}"
        self.home = tuple(c + self.chance.gauss(0, 0.06) for c in _CITY)
        self.usual = math.exp(self.chance.gauss(3.2, 0.5))
        self.devices = [f"{kind}-{self.number:05d}" for kind in ("phone", "card")]
        self.categories = self.chance.sample(CATEGORIES, 4)

    def pays(self, moment: datetime) -> dict[str, Any]:
        """Returns a payment by the owner. Some are unusual: on a journey, with a new device, or for a large amount."""
        chance = self.chance
        category = chance.choice(self.categories) if chance.random() < 0.9 else chance.choice(CATEGORIES)
        large = 6.0 if chance.random() < 0.02 else 1.0
        device = chance.choice(self.devices)
        if chance.random() < 0.01:
            device = f"new-{chance.randrange(10**6):06d}"
            self.devices[chance.randrange(len(self.devices))] = device
        spread = 2.0 if chance.random() < 0.01 else 0.02
        place = [c + chance.gauss(0, spread) for c in self.home]
        return self.payment(moment, self.usual * math.exp(chance.gauss(0, 0.6)) * large, category, device, place)

    def payment(
        self, moment: datetime, amount: float, category: str, device: str, place: list[float] | tuple[float, ...]
    ) -> dict[str, Any]:
        """Returns a payment by this card, a payload of the contract `payments`. `amount` is in USD."""
        local = self.clock.at(moment)
        return {
            "timestamp": iso(moment),
            "payment_id": f"pay_{self.chance.getrandbits(64):016x}",
            "card": self.id,
            "device": device,
            "merchant_category": category,
            "amount": round(min(max(amount, 0.5), 20_000), 2),
            "hour_of_day": int(local.hour),
            "is_weekend": local.is_weekend,
            "location": {"latitude": round(place[0], 5), "longitude": round(place[1], 5)},
        }


def card_testing(card: Card, moment: datetime) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """Yields the payments of a card test: a thief tries a stolen number with small amounts, seconds apart."""
    chance, device, at = card.chance, f"bot-{card.chance.randrange(10**6):06d}", moment
    for _ in range(chance.randint(4, 9)):
        yield at, card.payment(at, chance.uniform(0.5, 4), "online", device, _random_place(chance))
        at += timedelta(seconds=chance.uniform(2, 12))


def stolen_card(card: Card, moment: datetime) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """Yields the payments of a stolen card, which buys goods for resale far from the owner's home."""
    chance, at, place = card.chance, moment, _random_place(card.chance)
    for _ in range(chance.randint(2, 4)):
        category = chance.choice(("electronics", "jewellery"))
        yield at, card.payment(at, card.usual * chance.uniform(3, 9), category, card.devices[-1], place)
        at += timedelta(seconds=chance.uniform(30, 120))


def takeover(card: Card, moment: datetime) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """Yields the payments of an account takeover: another device pays unusual amounts online."""
    chance, at = card.chance, moment
    device = f"web-{chance.randrange(10**6):06d}"
    for _ in range(chance.randint(2, 5)):
        place = [c + chance.gauss(0, 0.3) for c in card.home]
        yield at, card.payment(at, card.usual * chance.uniform(1.5, 5), "online", device, place)
        at += timedelta(seconds=chance.uniform(20, 90))


PATTERNS = {"card_testing": card_testing, "stolen_card": stolen_card, "takeover": takeover}
"""The fraud patterns by name."""


class City:
    """Simulates all cards of a city. `faults` is the share of a bad day's frauds.

    `live` yields payments with their fraud pattern (None for an owner's payment), and chargebacks.
    """

    def __init__(self, cards: int, seed: int, clock: LocalClock = UTC_CLOCK, faults: float = DEFAULT_FAULTS) -> None:
        self._frauds_per_payment = FRAUDS_PER_CARD_HOUR * SECONDS_BETWEEN / 3600 * faults
        self.cards = [Card(number, random.Random(seed * 100_000 + number), clock) for number in range(cards)]
        self._random = random.Random(seed)
        self._scheduled: list[tuple[datetime, int, str, str | None, dict[str, Any]]] = []
        self._count = 0
        self._has_begun = False

    def live(self, moment: datetime, count: int) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
        """Yields the payments of `count` owners at `moment`, then the scheduled events that are due.

        Each is (topic, pattern, payload).
        """
        if not self._has_begun:  # a city begins with a reported fraud, so that every table has a row
            self._has_begun = True
            self._defraud(self._random.choice(self.cards), "takeover", moment, reported_after=1.0)
        for card in self._random.sample(self.cards, min(count, len(self.cards))):
            yield PAYMENTS.topic, None, card.pays(moment)
            if self._random.random() < self._frauds_per_payment:
                self._defraud(card, self._random.choice(sorted(PATTERNS)), moment + timedelta(seconds=5))
        while self._scheduled and self._scheduled[0][0] <= moment:
            _, _, topic, pattern, payload = heapq.heappop(self._scheduled)
            yield topic, pattern, payload

    def _defraud(self, card: Card, pattern: str, moment: datetime, reported_after: float | None = None) -> None:
        for at, payment in PATTERNS[pattern](card, moment):
            self._schedule(at, PAYMENTS.topic, pattern, payment)
            usual = 1 + self._random.expovariate(1 / _REPORTED_AFTER)
            delay = min(reported_after or usual, 0.9 * REPORTED_WITHIN.total_seconds())
            report = {"timestamp": iso(at + timedelta(seconds=delay)), "payment_id": payment["payment_id"]}
            self._schedule(at + timedelta(seconds=delay), CHARGEBACKS.topic, pattern, report | {"card": card.id})

    def _schedule(self, at: datetime, topic: str, pattern: str | None, payload: dict[str, Any]) -> None:
        self._count += 1
        heapq.heappush(self._scheduled, (at, self._count, topic, pattern, payload))


class Simulator:
    """Simulates the payments and chargebacks, and sends them to Kafka."""

    def __init__(
        self, config: Settings, rate: float = DEFAULT_RATE, faults: float = DEFAULT_FAULTS, seed: int = 0
    ) -> None:
        self.config, self.rate = config, rate
        self.city = City(max(10, round(rate * SECONDS_BETWEEN)), seed, LocalClock.from_settings(config), faults)
        self._faults = Faults(FaultRates.scaled(faults), seed + 1)
        self.heartbeat = Heartbeat(config, "simulator-payments", is_loop=True)

    def events(self, moment: datetime, count: int) -> Iterator[tuple[str, str, bytes]]:
        """Yields (topic, key, message) of `count` owners' payments and of the scheduled events that are due."""
        for topic, _, payload in self.city.live(moment, count):
            if topic == CHARGEBACKS.topic:
                yield topic, payload["payment_id"], json.dumps(payload).encode()
                continue
            for message in self._faults.messages([payload]):
                yield topic, payload["card"], message

    def run(self, stop: threading.Event, progress: Progress = ignore) -> None:
        """Sends events until `stop` is set."""
        send(self.config.kafka, [PAYMENTS, CHARGEBACKS], self.events, self.rate, self.heartbeat, stop, progress)


def _random_place(chance: random.Random) -> list[float]:
    return [_CITY[0] + chance.uniform(-8, 8), _CITY[1] + chance.uniform(-15, 15)]
