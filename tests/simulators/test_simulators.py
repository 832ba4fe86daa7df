import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from city.contracts.registry import contract_of
from city.settings import Settings
from city.stack.history_plan import make_plan
from city.streaming.decode import decode
from city_assets.environment.contract import DEVICES, SENSORS
from city_assets.payments.contract import CATEGORIES
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators import environment, equipment, payments, traffic
from simulators.clock import iso, pace
from simulators.environment import NOISE, fleet, values
from simulators.faults import FaultRates, Faults
from simulators.world.flow import Flow
from simulators.world.lifecycle import FAULTS, WEAR_IDLE, WEAR_LOAD
from simulators.world.local import LocalClock
from simulators.world.machines import Machine
from simulators.world.machines import fleet as machine_fleet
from simulators.world.payers import City
from simulators.world.streets import is_land, to_metres
from tests.events import NOW, encode, raw


def test_without_faults_every_event_is_valid(config: Settings) -> None:
    sensors = environment.Simulator(config, faults=0)
    vehicles = traffic.Simulator(config, faults=0, rate=50)
    for moment in (NOW, NOW + timedelta(hours=5), NOW + timedelta(hours=12)):
        readings = [message for _, message in sensors.events(moment, 400)]
        positions = [message for _, message in vehicles.events(moment, 20)]
        for contract, messages in ((SENSORS, readings), (VEHICLE_POSITIONS, positions)):
            rows, rejects = decode(contract, raw(list(messages), arrived=moment), {})
            assert rejects["reasons"].to_list() == []
            assert rows.height == len(messages) > 0
    machines, cards = equipment.Simulator(config, faults=0), payments.Simulator(config, faults=0)
    for simulator, count in ((machines, 24), (cards, 20)):
        for minutes in range(0, 120, 5):
            sent: dict[str, list[bytes]] = {}
            for second in range(0, 300, 30):
                moment = NOW + timedelta(minutes=minutes, seconds=second)
                for topic, _, message in simulator.events(moment, count):
                    sent.setdefault(topic, []).append(message)
            for topic, messages in sent.items():
                rows, rejects = decode(contract_of(topic), raw(list(messages), arrived=moment), {})
                assert rejects["reasons"].to_list() == []
                assert rows.height == len(messages)
    announcements = environment.Announcements(sensors.sensors, 0)
    announced = encode(*(announcements.payload(sensor, NOW) for sensor in range(len(sensors.sensors))))
    assert decode(DEVICES, raw(announced), {})[0].height == 400


def test_the_same_seed_makes_the_same_city(config: Settings) -> None:
    def city(seed: int) -> list[Any]:
        for path in config.run.glob("*.sent"):
            path.unlink()  # a second process of the same city sends only what the first one has not
        return [
            list(environment.Simulator(config, faults=1, seed=seed).events(NOW, 300)),
            traffic.Simulator(config, faults=1, seed=seed).events(NOW, 300),
            list(equipment.Simulator(config, faults=1, seed=seed).events(NOW, 48)),
            list(payments.Simulator(config, faults=1, seed=seed).events(NOW, 300)),
        ]

    assert city(1) == city(1)
    assert city(1) != city(2)


def test_a_simulator_that_starts_later_continues_the_same_city(config: Settings) -> None:
    """A restart changes no vehicle's place, no sensor's value and no machine's state."""
    later = NOW + timedelta(minutes=20)
    early, late = (traffic.Simulator(config, faults=0, rate=50) for _ in range(2))
    early.events(NOW, 1)
    early._traffic._turn = 0
    assert early.events(later, 20) == late.events(later, 20)
    machines = [equipment.Simulator(config, faults=0) for _ in range(2)]
    list(machines[0].events(NOW, 24))
    readings = [
        [message for topic, _, message in machine.events(later, 24) if topic == "sensor-readings"]
        for machine in machines
    ]
    assert readings[0] == readings[1]
    cards = [payments.Simulator(config, faults=0) for _ in range(2)]
    list(cards[0].events(NOW, 1))
    paid = [[message for topic, _, message in city.events(later, 1) if topic == "payments"] for city in cards]
    assert set(paid[1][1:]) <= set(paid[0])


def test_topics_follow_the_sensor(config: Settings) -> None:
    sent = list(environment.Simulator(config, faults=0).events(NOW, 80))
    assert len(sent) >= 80
    for topic, message in sent:
        event = json.loads(message)
        assert topic == f"city/sensors/{event['location']}/{event['type']}"


def test_no_vehicle_reports_twice_at_a_moment(config: Settings) -> None:
    city = traffic.Traffic(0, LocalClock("America/New_York", "US"))
    for hour in range(0, 24, 3):
        which, _, _ = city.reports((NOW + timedelta(hours=hour)).timestamp(), 600)
        assert 0 < len(which) == len(set(which.tolist()))


def test_stuck_sensors_repeat_and_drifting_ones_leave() -> None:
    flow, one = Flow(0), np.zeros(1, int)
    monday = datetime(2026, 5, 4, tzinfo=UTC).timestamp()

    def read(rates: FaultRates, seconds: float) -> float:
        return float(values(fleet(rates, 0), flow, one, np.array([seconds]))[0])

    stuck = [read(FaultRates(stuck=1), monday + hour * 3_600) for hour in range(0, 48, 4)]
    assert len(set(stuck)) <= 2  # one, and another one after a calibration
    hours = [monday + hour * 3_600 for hour in range(0, 48, 4)]
    offsets = [read(FaultRates(drifting=1), hour) - read(FaultRates(), hour) for hour in hours]
    assert max(offsets) - min(offsets) > 15 * NOISE["traffic"]
    assert sum(after > before for before, after in pairwise(offsets)) >= 10  # all but that of the calibration


def test_sensors_stand_on_land() -> None:
    sensors = fleet(FaultRates(), 0)
    assert is_land(to_metres(sensors.latitude, sensors.longitude)).all()


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
    _, faults = messages(FaultRates(spike=0.1))
    assert sum(json.loads(message)["value"] == 20.0 for message in faults) == pytest.approx(200, rel=0.3)
    events, broken = messages(FaultRates(malformed=1), 300)
    assert len(broken) == 300
    assert not {json.dumps(event).encode() for event in events} & set(broken)


def test_out_of_order_events_come_later_and_none_is_lost() -> None:
    events, faults = messages(FaultRates(out_of_order=0.2))
    order = [json.loads(message)["n"] for message in faults]
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
    machine = machine_fleet(1, 1, faults=1)[0]
    begin = NOW.timestamp()
    readings, runs, fault, wear = machine.readings(begin + np.arange(0, 24 * 3600, 5.0))
    assert (wear[runs] >= 0).all()
    assert (wear[runs] < 1).all()
    log = machine.log(begin, begin + 24 * 3600)
    ends = [kind for _, kind, _ in log if kind in ("failure", "repair")]
    first = ends.index("failure")
    assert ends[first : first + 4] == ["failure", "repair", "failure", "repair"]
    causes = {cause for _, kind, cause in log if kind == "inspection"}
    assert causes
    assert causes <= set(FAULTS)
    vibration, bearing = readings["vibration"], list(FAULTS).index("bearing")
    assert len(set(fault[runs])) > 2
    assert vibration[runs & (fault == bearing)].max() > 1.2 * vibration[runs & (fault < 0)].max()


def test_a_fault_develops() -> None:
    machine = machine_fleet(1, 1, faults=1)[0]
    week = machine.week(machine.week_of(NOW.timestamp()))
    leaks = np.flatnonzero(
        (week.fault == list(FAULTS).index("overheating")) & (week.fault_ends - week.fault_begins > 200)
    )
    begun, later = (
        np.mean(
            [
                machine.readings(np.array([week.fault_begins[n] + after]))[0]["temperature"][0]
                - machine.readings(np.array([week.fault_begins[n] - 5]))[0]["temperature"][0]
                for n in leaks
            ]
        )
        for after in (2, 180)
    )
    assert 8 < begun < later


def test_machines_have_more_load_by_day_and_overheat_more_often_then() -> None:
    machines = machine_fleet(3, 24, faults=1)
    begin = datetime(2026, 5, 4, tzinfo=UTC).timestamp()
    hours = begin + np.arange(0, 5 * 86_400, 240.0)
    by_day = (hours % 86_400 > 8 * 3_600) & (hours % 86_400 < 19 * 3_600)
    load = np.mean([machine.loads(hours)[0] for machine in machines], axis=0)
    assert load[by_day].mean() > 1.1 * load[~by_day].mean()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_default_fleet_has_few_faults_and_its_machines_are_serviced_before_they_fail(seed: int) -> None:
    begin, hours = NOW.timestamp(), 48
    log = [entry for machine in machine_fleet(seed) for entry in machine.log(begin, begin + hours * 3600)]
    count = {name: sum(kind == name for _, kind, _ in log) / hours for name in ("inspection", "failure", "repair")}
    assert 0.5 < count["inspection"] < 2
    assert 0.5 < count["failure"] < 2.5
    assert count["repair"] > 10 * count["failure"]


def test_a_serviced_machine_would_have_run_for_another_hour() -> None:
    """Else its last rows, labelled with the cap of the remaining life, would teach that worn machines live long."""
    short, lives = 0, 0
    for number in range(8):
        machine = Machine(5, number, faults=0.0)
        week = machine.week(machine.week_of(NOW.timestamp()))
        for begin, end, worn in list(zip(week.begins, week.ends, week.worn, strict=True))[:-1]:
            used = float(np.diff(machine.wear_hours(machine.week_of(NOW.timestamp()), np.array([begin, end])))[0])
            most = WEAR_IDLE + WEAR_LOAD  # an hour under full load
            average = 0.5 * (most + 1.0)
            short += worn - used < average - 0.15
            lives += 1
    assert lives > 500
    assert short <= lives // 50


def test_without_faults_no_machine_fails_and_no_card_is_stolen(config: Settings) -> None:
    begin = NOW.timestamp()
    machines = machine_fleet(1, 4, faults=0)
    log = [entry for machine in machines for entry in machine.log(begin, begin + 4 * 3600)]
    assert {kind for _, kind, _ in log} == {"repair"}
    city = City(1, faults=0)
    assert (city.events(begin, begin + 4 * 3600).pattern < 0).all()
    assert not len(city.chargebacks(begin, begin + 4 * 3600)[0])


def test_a_city_begins_with_a_payment_that_is_reported(config: Settings) -> None:
    """So every table has a row at once."""
    topics = [topic for topic, _, _ in payments.Simulator(config, faults=0).events(NOW, 1)]
    assert topics.count("chargebacks") == 1


def test_no_payment_is_made_by_two_starts_nor_by_the_history_and_live(config: Settings) -> None:
    """The history ends when the city begins, and Kafka may take the first payments seconds later."""

    def ids(city: payments.Simulator, moment: datetime, topic: str = "payments") -> set[str]:
        sent = [json.loads(message) for at, _, message in city.events(moment, 1) if at == topic]
        return {event["payment_id"] for event in sent}

    end = make_plan(config.model_copy(update={"history_days": 1}), now=NOW).end
    chunks = list(payments.history(config, 0, end - timedelta(minutes=1), end - timedelta(minutes=1), end))
    past = {number for chunk in chunks for number in chunk.rows["payment_id"]}
    assert len(past) > 20
    first, second = (payments.Simulator(config, faults=0) for _ in range(2))
    live = ids(first, end + timedelta(seconds=2)) | ids(first, end + timedelta(seconds=30))
    again = ids(second, end + timedelta(seconds=33)) | ids(second, end + timedelta(seconds=60))
    assert len(live) > 20
    assert len(again) > 20
    assert not live & past
    assert not again & (past | live)


def test_payments_begin_after_a_history_that_ends_later(config: Settings) -> None:
    """A clock that was set back does not repeat what the history has."""
    plan = make_plan(config.model_copy(update={"history_days": 1}), now=NOW + timedelta(seconds=60))
    city = payments.Simulator(config, faults=0)
    assert list(city.events(NOW, 1)) == []
    sent = [
        json.loads(message) for topic, _, message in city.events(NOW + timedelta(seconds=90), 1) if topic == "payments"
    ]
    assert sent
    assert min(event["timestamp"] for event in sent) >= iso(plan.end)


def test_a_machine_that_the_history_commissioned_is_not_commissioned_again(config: Settings) -> None:
    def kinds() -> set[str]:
        sent = equipment.Simulator(config, faults=0).events(NOW, 24)
        return {json.loads(message)["kind"] for topic, _, message in sent if topic == "maintenance-log"}

    assert "commissioned" in kinds()
    assert "commissioned" not in kinds(), "a second process knows what the first one sent"
    path = config.run / "simulator-equipment.sent"
    path.unlink()
    active = config.model_copy(update={"history_days": 1, "domains": ("traffic",)})
    make_plan(active, now=NOW)
    assert "commissioned" in kinds(), "the history is of other domains"
    path.unlink()
    shutil.rmtree(config.home / "history")
    make_plan(config.model_copy(update={"history_days": 1}), now=NOW)
    assert "commissioned" not in kinds()


def test_after_a_short_pause_each_payment_is_sent_once(config: Settings) -> None:
    def ids(city: payments.Simulator, minutes: float) -> list[str]:
        sent = city.events(NOW + timedelta(minutes=minutes), 1)
        return [json.loads(message)["payment_id"] for topic, _, message in sent if topic == "payments"]

    first, second = (payments.Simulator(config, faults=0) for _ in range(2))
    sent = ids(first, 0)[1:] + ids(first, 3) + ids(second, 8)[1:] + ids(second, 12)
    expected = first.city.events(NOW.timestamp(), (NOW + timedelta(minutes=12)).timestamp())
    assert sorted(sent) == sorted(f"pay_{int(number):016x}" for number in expected.payment)


def test_after_a_long_pause_nothing_of_it_is_paid_and_what_happened_to_machines_is_in_the_log(config: Settings) -> None:
    def sent(simulator: Any, hours: float, count: int) -> list[tuple[str, dict[str, Any]]]:
        events = simulator.events(NOW + timedelta(hours=hours), count)
        return [(topic, json.loads(message)) for topic, _, message in events]

    first, second = (payments.Simulator(config, faults=1) for _ in range(2))
    for city in (first, second):  # has thieves, and no broken messages
        city._faults = Faults(FaultRates.scaled(0), 0)
    before = {event["payment_id"] for hours in (0, 1) for _, event in sent(first, hours, 1)}
    after = [entry for hours in (9, 10) for entry in sent(second, hours, 1)]
    paid = {event["payment_id"]: event["timestamp"] for topic, event in after if topic == "payments"}
    assert min(paid.values()) >= iso(NOW + timedelta(hours=9))
    reported = [event["payment_id"] for topic, event in after if topic == "chargebacks"]
    assert set(reported) <= before | set(paid)
    assert set(reported) & before, "a report of a payment from before the pause"
    machines = [equipment.Simulator(config, faults=0) for _ in range(2)]
    log = [event for n, hours in ((0, 0), (1, 8)) for topic, event in sent(machines[n], hours, 24) if "kind" in event]
    happened = [entry for m in machines[0].machines for entry in m.log(NOW.timestamp(), NOW.timestamp() + 8 * 3600)]
    assert len([event for event in log if event["kind"] != "commissioned"]) == len(happened) > 50


def test_frauds_are_few_by_default() -> None:
    city, begin, hours = City(2), NOW.timestamp(), 12
    frauds = city.events(begin, begin + hours * 3600)
    stolen = frauds.take(np.flatnonzero(frauds.pattern >= 0))
    assert 1 <= len(set(stolen.card.tolist())) / hours <= 8


def test_people_pay_by_day_and_where_they_are() -> None:
    city = City(2, LocalClock("America/New_York", "US"))
    begin = datetime(2026, 5, 4, 4, tzinfo=UTC).timestamp()  # a Monday's midnight
    paid = city.events(begin, begin + 86_400)
    hour = city.clock.at(paid.seconds).hour
    counts = np.bincount(hour.astype(int), minlength=24)
    assert counts[12] > 5 * counts[3]
    assert len(paid.card) == pytest.approx(86_400 * city.rate, rel=0.15)
    near = np.abs(paid.latitude - 40.75) < 0.1
    assert near.mean() > 0.95
    moved = np.abs(paid.latitude[(hour > 10) & (hour < 15)].mean() - paid.latitude[(hour > 19) & (hour < 23)].mean())
    assert moved > 0.001


def test_each_pattern_of_fraud_is_told_by_its_payments_and_reported() -> None:
    city, begin = City(1, faults=1), NOW.timestamp()
    paid = city.events(begin, begin + 6 * 3600)
    reported = {int(payment) for payment in city.chargebacks(begin, begin + 7 * 3600)[1].payment}
    frauds = {int(payment) for payment in paid.payment[paid.pattern >= 0]}
    assert len(frauds & reported) > 0.95 * len(frauds)
    assert not reported & {int(payment) for payment in paid.payment[paid.pattern < 0]}
    assert set(paid.pattern.tolist()) == {-1, 0, 1, 2}
    mean = {n: float(paid.amount[paid.pattern == n].mean()) for n in (-1, 0, 1)}
    assert mean[0] < mean[-1] < mean[1]
    assert {CATEGORIES[n] for n in paid.category[paid.pattern == 2]} == {"online"}
