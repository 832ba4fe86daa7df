"""Simulators live by the configured time zone and holidays, as the tables do that are made of their events."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from city.settings import Settings
from city.tables import calendar
from simulators import environment, equipment, payments, traffic

CITIES = [
    ("America/New_York", "US", date(2026, 3, 6)),  # clocks go forward on the 8th
    ("America/New_York", "US", date(2026, 10, 30)),  # and back on the 1st
    ("Europe/Berlin", "DE", date(2026, 3, 27)),
    ("Asia/Kolkata", "IN", date(2026, 6, 5)),  # half an hour off
    ("Pacific/Auckland", "NZ", date(2026, 9, 25)),
]
each_city = pytest.mark.parametrize(("timezone", "country", "friday"), CITIES)


def local(config: Settings, timezone: str, country: str) -> Settings:
    return config.model_copy(update={"timezone": timezone, "country": country})


def slots(config: Settings, days: Iterable[date]) -> pl.DataFrame:
    return calendar.calendar(list(days), config.timezone, config.country).sort("slot")


def moment_of(slot: int) -> datetime:
    return datetime.fromtimestamp(slot * calendar.SLOT_SECONDS, UTC)


def peaks(rows: pl.DataFrame) -> Iterator[dict[str, object]]:
    """The slot of the largest `height` in each half of each local day."""
    for half in rows.with_columns(morning=pl.col("local_hour") < 12).partition_by("day", "morning"):
        yield half.sort("height", descending=True).row(0, named=True)


@each_city
def test_the_slowest_traffic_is_in_the_rush_hours(config: Settings, timezone: str, country: str, friday: date) -> None:
    """Before and after a change of the clocks."""
    config = local(config, timezone, country)
    simulator = traffic.Simulator(config, faults=0, rate=10)
    working_days = slots(config, [friday, friday + timedelta(days=3)])
    heights = []
    for slot in working_days["slot"]:
        reports = [
            event for n in range(6) for event in simulator.events(moment_of(slot) + timedelta(seconds=2 * n), 20)
        ]
        heights.append(-sum(json.loads(message)["speed"] for _, message in reports) / len(reports))
    found = list(peaks(working_days.with_columns(height=pl.Series(heights))))
    assert len(found) == 4
    assert all(peak["rush_hour"] for peak in found), found


@each_city
@pytest.mark.parametrize("kind", ["traffic", "air_quality", "noise", "consumption"])
def test_sensors_peak_in_the_rush_hours(config: Settings, timezone: str, country: str, friday: date, kind: str) -> None:
    config = local(config, timezone, country)
    sensors = [sensor for sensor in environment.Simulator(config, faults=0).sensors if sensor.kind == kind]
    working_days = slots(config, [friday, friday + timedelta(days=3)])
    heights = [
        sum(sensor.reading(moment_of(slot))["value"] for sensor in sensors) / len(sensors)
        for slot in working_days["slot"]
    ]
    found = list(peaks(working_days.with_columns(height=pl.Series(heights))))
    assert len(found) == 4
    assert all(peak["rush_hour"] for peak in found), found


def test_a_holiday_has_as_little_rush_as_a_weekend(config: Settings) -> None:
    config = local(config, "America/New_York", "US")
    clock = environment.Simulator(config).clock
    thanksgiving, day_before = (datetime(2026, 11, day, 13, 30, tzinfo=UTC) for day in (26, 25))
    assert not clock.at(thanksgiving).is_workday
    assert clock.at(day_before).is_workday
    assert traffic.free_flow(clock.at(thanksgiving)) > traffic.free_flow(clock.at(day_before))


@each_city
def test_payments_and_shifts_are_of_the_local_hour(config: Settings, timezone: str, country: str, friday: date) -> None:
    config = local(config, timezone, country)
    cards, machines = payments.Simulator(config, faults=0, rate=1), equipment.Simulator(config, faults=0)
    shifts = {6: "early", 14: "late", 22: "night", 5: "night", 13: "early", 21: "late"}
    worked = set()
    for row in slots(config, [friday, friday + timedelta(days=1)]).iter_rows(named=True):
        moment = moment_of(row["slot"])
        _, _, message = next(iter(cards.events(moment, 1)))
        paid = json.loads(message)
        assert (paid["hour_of_day"], paid["is_weekend"]) == (row["local_hour"], row["weekday"] > 5)
        read = [json.loads(m) for topic, _, m in machines.events(moment, 24) if topic == "sensor-readings"]
        if read and row["local_hour"] in shifts:
            assert {reading["metadata"]["shift"] for reading in read} == {shifts[row["local_hour"]]}
            worked.add(row["local_hour"])
    assert worked == shifts.keys()


def test_simulators_need_neither_polars_nor_delta() -> None:
    """They are one small process; each of these would double it."""
    code = "import sys, simulators.together, simulators.clock; from city.contracts.registry import domains; "
    code += "[domain.simulator() for domain in domains()]; "
    code += "clock = simulators.clock.LocalClock('America/New_York', 'US'); "
    code += "clock.at(__import__('datetime').datetime(2026, 5, 4, tzinfo=__import__('datetime').UTC)); "
    code += "print({'polars', 'deltalake'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
