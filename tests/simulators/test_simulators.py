import json
import math
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from city.contracts.registry import contract_of
from city.settings import Settings
from city.streaming.decode import decode
from city_assets.environment.contract import DEVICES, SENSORS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators import environment, equipment, payments, traffic
from simulators.clock import UTC_CLOCK, pace
from simulators.environment import RHYTHMS, fleet
from simulators.faults import FaultRates, Faults
from tests.events import NOW, encode, raw


def test_without_faults_every_event_is_valid(config: Settings) -> None:
    sensors = environment.Simulator(config, faults=0)
    vehicles = traffic.Simulator(config, faults=0, rate=50)
    for moment in (NOW, NOW + timedelta(hours=5), NOW + timedelta(hours=12)):
        readings = [message for _, message in sensors.events(moment, 400)]
        positions = [message for _, message in vehicles.events(moment, 200)]
        for contract, messages in ((SENSORS, readings), (VEHICLE_POSITIONS, positions)):
            rows, rejects = decode(contract, raw(list(messages), arrived=moment), {})
            assert rejects["reasons"].to_list() == []
            assert rows.height == len(messages)
    machines, cards = equipment.Simulator(config, faults=0), payments.Simulator(config, faults=0)
    for step in range(0, 7200, 30):
        moment = NOW + timedelta(seconds=step)
        for simulator, count in ((machines, 24), (cards, 20)):
            sent: dict[str, list[bytes]] = {}
            for topic, _, message in simulator.events(moment, count):
                sent.setdefault(topic, []).append(message)
            for topic, messages in sent.items():
                rows, rejects = decode(contract_of(topic), raw(list(messages), arrived=moment), {})
                assert rejects["reasons"].to_list() == []
                assert rows.height == len(messages)
    announced = encode(*(sensor.announcement(NOW) for sensor in sensors.sensors))
    assert decode(DEVICES, raw(announced), {})[0].height == 400


def test_the_same_seed_makes_the_same_city(config: Settings) -> None:
    def city(seed: int) -> list[Any]:
        return [
            list(environment.Simulator(config, faults=1, seed=seed).events(NOW, 300)),
            traffic.Simulator(config, faults=1, seed=seed).events(NOW, 300),
            list(equipment.Simulator(config, faults=1, seed=seed).events(NOW, 48)),
            list(payments.Simulator(config, faults=1, seed=seed).events(NOW, 300)),
        ]

    assert city(1) == city(1)
    assert city(1) != city(2)


def test_topics_follow_the_sensor(config: Settings) -> None:
    sent = list(environment.Simulator(config, faults=0).events(NOW, 80))
    assert len(sent) >= 80
    for topic, message in sent:
        event = json.loads(message)
        assert topic == f"city/sensors/{event['location']}/{event['type']}"


def test_a_day_has_its_rush_hours_and_a_weekend_less_of_them() -> None:
    rhythm = RHYTHMS["traffic"]
    monday, sunday = datetime(2026, 5, 4, tzinfo=UTC), datetime(2026, 5, 3, tzinfo=UTC)
    morning, weekend_morning = (UTC_CLOCK.at(day.replace(hour=8, minute=30)) for day in (monday, sunday))
    evening, night = (UTC_CLOCK.at(monday + timedelta(hours=hours)) for hours in (17.5, 3))
    assert rhythm.at(evening) > 3 * rhythm.at(night)
    assert rhythm.at(weekend_morning) < rhythm.at(morning)
    assert traffic.free_flow(morning) < traffic.free_flow(weekend_morning)
    assert traffic.free_flow(night) > 0.95


def test_stuck_sensors_repeat_and_drifting_ones_leave() -> None:
    stuck = fleet(FaultRates(stuck=1), 0)[0]
    assert len({stuck.reading(NOW + timedelta(hours=hours))["value"] for hours in range(5)}) == 1
    steady, drifting = fleet(FaultRates(), 0)[0], fleet(FaultRates(drifting=1), 0)[0]
    steady.reading(NOW), drifting.reading(NOW)
    day = NOW + timedelta(hours=24)
    assert drifting.reading(day)["value"] > steady.reading(day)["value"] + 100


def messages(rates: FaultRates, count: int = 2000) -> tuple[list[dict[str, Any]], list[bytes]]:
    faults = Faults(rates, seed=1, spiked="value")
    events = [{"n": n, "value": 1.0} for n in range(count)]
    return events, [message for event in events for message in faults.messages([event])]


@pytest.mark.parametrize(
    ("rates", "count"),
    [(FaultRates(), 2000), (FaultRates(drop_out=0.5), 1000), (FaultRates(duplicate=0.5), 3000)],
)
def test_each_rate_is_its_own(rates: FaultRates, count: int) -> None:
    assert len(messages(rates)[1]) == pytest.approx(count, rel=0.06)


def test_spikes_multiply_and_broken_messages_are_broken_in_every_way() -> None:
    _, found = messages(FaultRates(spike=0.1))
    assert sum(json.loads(message)["value"] == 20.0 for message in found) == pytest.approx(200, rel=0.3)
    events, broken = messages(FaultRates(malformed=1), 300)
    assert len(broken) == 300
    assert not {json.dumps(event).encode() for event in events} & set(broken)


def test_out_of_order_events_come_later_and_none_is_lost() -> None:
    events, found = messages(FaultRates(out_of_order=0.2))
    order = [json.loads(message)["n"] for message in found]
    assert order != sorted(order)
    assert len(events) - len(set(order)) <= 1  # the last may still be held back


def test_a_rate_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"spike=1.5 is not between 0 and 1"):
        FaultRates(spike=1.5)


def test_the_pace_is_kept_whatever_a_step_costs() -> None:
    stop, counts = threading.Event(), list[int]()

    def step(now: datetime, count: int) -> None:
        counts.append(count)
        stop.wait(0.05)
        if len(counts) == 10:
            stop.set()

    pace(200, stop, step)
    assert sum(counts) == pytest.approx(200 * 10 * 0.15, rel=0.35)


def test_machines_wear_out_fail_and_are_repaired_and_their_faults_show() -> None:
    machine = equipment.fleet(1, 1, faults=1)[0]
    log, seen = [], dict[str | None, list[float]]()
    for step in range(6 * 3600 // 5):
        log += machine.step(NOW + timedelta(seconds=5 * step))
        if reading := machine.reading():
            assert 0 <= machine.wear < 1
            seen.setdefault(machine.fault, []).append(reading["readings"]["vibration"])
    kinds = [entry["kind"] for entry in log]
    assert kinds[0] == "commissioned"
    ends = [kind for kind in kinds if kind in ("failure", "repair")]
    assert ends[:4] == ["failure", "repair", "failure", "repair"]
    causes = {entry["cause"] for entry in log if entry["kind"] == "inspection"}
    assert causes
    assert causes <= set(equipment.FAULTS)
    assert len(seen) > 2
    assert max(seen["bearing"]) > max(seen[None])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_default_fleet_has_few_faults_and_its_machines_are_serviced_before_they_fail(seed: int) -> None:
    machines, hours, log = equipment.fleet(seed), 12, list[dict[str, Any]]()
    for step in range(hours * 3600 // 5):
        for machine in machines:
            log += machine.step(NOW + timedelta(seconds=5 * step))
    count = {kind: sum(entry["kind"] == kind for entry in log) / hours for kind in ("inspection", "failure", "repair")}
    assert 0.5 < count["inspection"] < 2
    assert 0.5 < count["failure"] < 2.5
    assert count["repair"] > 10 * count["failure"]


def test_a_serviced_machine_would_have_run_for_another_hour() -> None:
    """Else its last rows, labelled with the cap of the remaining life, would teach that worn machines live long."""
    short, lives, hour = 0, 150, 3600 // 10
    for seed in range(lives):
        machine, step = equipment.fleet(seed, 1, faults=0)[0], 0
        while machine.down_until is None:
            machine.step(NOW + timedelta(seconds=10 * step))
            step += 1
        machine.down_until, machine._service_wear = None, math.inf
        log = [entry for n in range(hour) for entry in machine.step(NOW + timedelta(seconds=10 * (step + n)))]
        short += any(entry["kind"] == "failure" for entry in log)
    assert short <= lives // 50


def test_without_faults_no_machine_fails_and_no_card_is_stolen_but_the_first() -> None:
    machines, cards = equipment.fleet(1, 4, faults=0), payments.City(100, seed=1, faults=0)
    log, patterns = list[dict[str, Any]](), list[str | None]()
    for step in range(4 * 3600 // 5):
        moment = NOW + timedelta(seconds=5 * step)
        log += [entry for machine in machines for entry in machine.step(moment)]
        patterns += [pattern for topic, pattern, _ in cards.live(moment, 3) if topic == payments.PAYMENTS.topic]
    assert {entry["kind"] for entry in log} == {"commissioned", "repair"}
    assert 2 <= len(patterns) - patterns.count(None) <= 5  # the one that a city begins with


def test_frauds_are_few_by_default() -> None:
    cards, hours, begun = round(payments.DEFAULT_RATE * payments.SECONDS_BETWEEN), 4, set[str]()
    city = payments.City(cards, seed=2)
    for second in range(hours * 3600):
        for _, pattern, payload in city.live(NOW + timedelta(seconds=second), round(payments.DEFAULT_RATE)):
            begun |= {payload["card"]} if pattern else set()
    assert 1 <= len(begun) / hours <= 8


def test_each_pattern_of_fraud_is_told_by_its_payments_and_reported() -> None:
    city, seen, reported = payments.City(300, seed=1, faults=1), dict[str | None, list[dict[str, Any]]](), set[str]()
    for step in range(3 * 3600):
        for topic, pattern, payload in city.live(NOW + timedelta(seconds=step), 3):
            if topic == payments.CHARGEBACKS.topic:
                reported.add(payload["payment_id"])
            else:
                seen.setdefault(pattern, []).append(payload)
    assert set(seen) == {None, *payments.PATTERNS}
    frauds = {p["payment_id"] for pattern, found in seen.items() if pattern for p in found}
    assert reported <= frauds
    assert len(reported) > 0.7 * len(frauds)
    mean = {pattern: sum(p["amount"] for p in found) / len(found) for pattern, found in seen.items()}
    assert mean["card_testing"] < mean[None] < mean["stolen_card"]
    assert {p["merchant_category"] for p in seen["takeover"]} == {"online"}
