"""Simulates card payments by owners with habits, payments by thieves, and the chargebacks that follow."""

import json
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from city.arrays import Floats
from city.settings import Settings
from city.streaming.heartbeat import Heartbeat
from city_assets.payments.contract import CATEGORIES, CHARGEBACKS, PAYMENTS
from simulators.clock import Progress, ignore, iso
from simulators.faults import DEFAULT_FAULTS, FaultRates, Faults
from simulators.history import Chunk, Span, by_day
from simulators.resume import Resume
from simulators.to_kafka import send
from simulators.world.local import DAY_SECONDS, LocalClock
from simulators.world.payers import RATE, City, Events

if TYPE_CHECKING:
    import polars as pl

DEFAULT_RATE = RATE
_BLOCK_SECONDS = 600.0

Due = tuple[float, str, dict[str, Any]]
"""An event to send: its moment (s since 1970), topic and payload."""


def payloads(city: City, events: Events) -> Iterator[dict[str, Any]]:
    """Yields the payloads of the contract `payments`."""
    local = city.clock.at(events.seconds)
    for n in range(len(events.card)):
        card, hour = int(events.card[n]), float(local.hour[n])
        yield {
            "timestamp": iso(datetime.fromtimestamp(float(events.seconds[n]), UTC)),
            "payment_id": f"pay_{int(events.payment[n]):016x}",
            "card": f"card_{card:05d}",
            "device": device_name(card, int(events.device[n]), int(events.seconds[n] // DAY_SECONDS)),
            "merchant_category": CATEGORIES[events.category[n]],
            "amount": round(float(np.clip(events.amount[n], 0.5, 20_000)), 2),
            "hour_of_day": int(hour),
            "is_weekend": bool(local.weekday[n] > 5),
            "location": {
                "latitude": round(float(events.latitude[n]), 5),
                "longitude": round(float(events.longitude[n]), 5),
            },
        }


def device_name(card: int, device: int, day: int) -> str:
    """Returns the name of a card's device: 0 its phone, 1 the card itself, and a new one for others."""
    return f"{('phone', 'card')[device]}-{card:05d}" if device < 2 else f"web-{card:05d}-{device}-{day}"


class Simulator:
    """Simulates the payments and chargebacks, and sends them to Kafka when they are due."""

    def __init__(
        self, config: Settings, rate: float = DEFAULT_RATE, faults: float = DEFAULT_FAULTS, seed: int = 0
    ) -> None:
        self.config, self.rate = config, rate
        self.city = City(seed, LocalClock.from_settings(config), faults, rate)
        self._faults = Faults(FaultRates.scaled(faults), seed + 1)
        self._resume = Resume(config, "simulator-payments", "payments")
        self._until: float | None = None
        self._silence = (0.0, 0.0)
        self._due: deque[Due] = deque()
        self.heartbeat = Heartbeat(config, "simulator-payments", is_loop=True)

    def events(self, moment: datetime, count: int) -> Iterator[tuple[str, str, bytes]]:
        """Yields (topic, key, message) of the payments and chargebacks since the last call. `count` has no effect.

        The first call yields a fraud that is reported, so that each table has a row, and what was paid since the
        history or since the last process. After a silence of more than ten minutes nothing of it was paid, and only
        the reports of earlier payments come.
        """
        now = moment.timestamp()
        if self._until is None:
            self._until = begin = self._resume.begin(now)
            if now - begin > _BLOCK_SECONDS:
                self._silence, self._until = (begin, now), now
                self._due.extend(due for due in self._due_events(begin, now) if due[1] == CHARGEBACKS.topic)
            self._due.extend(_reported_fraud(self.city, max(now, begin)))
        while self._until <= now:
            block_end = (self._until // _BLOCK_SECONDS + 1) * _BLOCK_SECONDS
            self._due.extend(self._due_events(self._until, block_end))
            self._until = block_end
        while self._due and self._due[0][0] <= now:
            _, topic, payload = self._due.popleft()
            if topic == CHARGEBACKS.topic:
                yield topic, payload["payment_id"], json.dumps(payload).encode()
                continue
            for message in self._faults.messages([payload]):
                yield topic, payload["card"], message
        self._resume.save(now)

    def _due_events(self, begin: float, end: float) -> list[Due]:
        """Returns the payments and chargebacks from `begin` to `end`, in order."""
        city, (silent, again) = self.city, self._silence
        paid = city.events(begin, end)
        reported, about = city.chargebacks(begin, end)
        heard = np.flatnonzero((about.seconds < silent) | (about.seconds >= again))
        reported, about = reported[heard], about.take(heard)
        due = [(float(at), PAYMENTS.topic, each) for at, each in zip(paid.seconds, payloads(city, paid), strict=True)]
        due += [
            (float(at), CHARGEBACKS.topic, _report(float(at), each))
            for at, each in zip(reported, payloads(city, about), strict=True)
        ]
        return sorted(due, key=lambda event: event[0])

    def run(self, stop: threading.Event, progress: Progress = ignore) -> None:
        """Sends events until `stop` is set."""
        send(self.config.kafka, [PAYMENTS, CHARGEBACKS], self.events, self.rate, self.heartbeat, stop, progress)


def _reported_fraud(city: City, now: float) -> list[Due]:
    """Returns the payment of an owner that is reported at once: the fraud that a city begins with."""
    hour = now // 3_600 * 3_600
    paid = city.events(hour - 3_600, hour).take(np.arange(1))
    # Each start reports a payment of its own, so the moment (µs since 1970) is the number.
    number = np.full(len(paid.card), round(now * 1e6), np.uint64)
    repeated = replace(paid, seconds=np.full(len(paid.card), now), payment=number)
    payments = list(payloads(city, repeated))
    reports = [(now, CHARGEBACKS.topic, _report(now, payment)) for payment in payments]
    return [*((now, PAYMENTS.topic, payment) for payment in payments), *reports]


def _report(at: float, payment: dict[str, Any]) -> dict[str, Any]:
    """Returns a chargeback, a payload of the contract `chargebacks`."""
    moment = iso(datetime.fromtimestamp(at, UTC))
    return {"timestamp": moment, "payment_id": payment["payment_id"], "card": payment["card"]}


def history(config: Settings, seed: int, origin: datetime, begin: datetime, end: datetime) -> Iterator[Chunk]:
    """Yields the payments and the chargebacks from `begin` to `end`, by local days."""
    span = Span.of(config, seed, origin, begin, end)
    city = City(seed, span.clock, span.faults)
    bounds = [(day, span.clock.begin(day), span.clock.begin(day + 1)) for day in span.days]
    yield from by_day(PAYMENTS, span, ((day, frame(city, city.events(*each))) for day, *each in bounds))
    yield from by_day(CHARGEBACKS, span, ((day, _reports(city, *each)) for day, *each in bounds))


def frame(city: City, events: Events) -> "pl.DataFrame":
    """Returns payments as rows of the contract. The event time is in seconds since 1970."""
    import polars as pl

    from city.contracts.schema import POLARS

    local = city.clock.at(events.seconds)
    rows = pl.DataFrame(
        {
            "timestamp": _milliseconds(events.seconds), "_card": events.card, "_payment": events.payment,
            "_device": events.device, "_day": (events.seconds // DAY_SECONDS).astype(int), "_kind": events.category,
            "amount": np.round(np.clip(events.amount, 0.5, 20_000), 2), "hour_of_day": local.hour.astype(int),
            "is_weekend": local.weekday > 5, "latitude": np.round(events.latitude, 5),
            "longitude": np.round(events.longitude, 5),
        }
    )  # fmt: skip
    number, device = pl.col("_card").cast(pl.String).str.zfill(5), pl.col("_device")
    rows = rows.with_columns(
        payment_id=_payment_ids(rows["_payment"]),
        card=pl.format("card_{}", number),
        device=pl.when(device == 0)
        .then(pl.format("phone-{}", number))
        .when(device == 1)
        .then(pl.format("card-{}", number))
        .otherwise(pl.format("web-{}-{}-{}", number, device, "_day")),
        merchant_category=pl.Series(CATEGORIES)[rows["_kind"]],
    )
    # Simulated payments do not have the fields that are null.
    return rows.select(
        field.name if field.name in rows.columns else pl.lit(None, POLARS[field.kind]).alias(field.name)
        for field in PAYMENTS.fields
    )


def _payment_ids(numbers: "pl.Series") -> "pl.Series":
    """Returns the ids of payments: pay_<16 hexadecimal digits>."""
    import polars as pl

    digits = numbers.to_numpy().byteswap().tobytes().hex()
    ids = [f"pay_{digits[first : first + 16]}" for first in range(0, len(digits), 16)]
    return pl.Series("payment_id", ids, dtype=pl.String)


def _reports(city: City, begin: float, end: float) -> "pl.DataFrame":
    at, about = city.chargebacks(begin, end)
    return frame(city, about).select("payment_id", "card", timestamp=_milliseconds(at))


def _milliseconds(seconds: Floats) -> Floats:
    """Cuts times to milliseconds, as `iso` does with those of live payloads, which are rounded to microseconds."""
    whole = np.floor(seconds)
    cut: Floats = whole + np.floor(np.round((seconds - whole) * 1e6) / 1_000) / 1_000
    return cut
