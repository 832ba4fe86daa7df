"""Payloads of the simulated machines and payments of a span of time."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from city.contracts.model import Contract
from city_assets.payments.contract import CHARGEBACKS, PAYMENTS
from simulators.payments import payloads
from simulators.world.machines import Machine
from simulators.world.payers import City
from tests.events import iso


def paid(city: City, begin: float, end: float) -> dict[Contract, list[dict[str, Any]]]:
    """The payments and the chargebacks, by contract, in the order of their time."""
    at, about = city.chargebacks(begin, end)
    reports = [
        {"timestamp": iso(datetime.fromtimestamp(float(moment), UTC)), "payment_id": p["payment_id"], "card": p["card"]}
        for moment, p in zip(at, payloads(city, about), strict=True)
    ]
    return {PAYMENTS: list(payloads(city, city.events(begin, end))), CHARGEBACKS: reports}


def logged(machines: Iterable[Machine], begin: float, end: float) -> list[dict[str, Any]]:
    """The log entries of machines, in the order of their time."""
    entries = sorted((entry, machine.id) for machine in machines for entry in machine.log(begin, end))
    return [
        {"timestamp": iso(datetime.fromtimestamp(at, UTC)), "machine_id": machine, "kind": kind}
        | ({"cause": cause} if cause else {})
        for (at, kind, cause), machine in entries
    ]
