"""Simulators live by the configured time zone and holidays, as the tables do that are made of their events."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from city.tables import calendar
from simulators import payments
from simulators.world.conditions import conditions
from simulators.world.flow import Flow
from simulators.world.local import LocalClock, to_date
from simulators.world.machines import SHIFTS, Machine
from simulators.world.payers import City
from simulators.world.rhythm import demand

CITIES = [
    ("America/New_York", "US", date(2026, 3, 6)),  # clocks go forward on the 8th
    ("America/New_York", "US", date(2026, 10, 30)),  # and back on the 1st
    ("Europe/Berlin", "DE", date(2026, 3, 27)),
    ("Asia/Kolkata", "IN", date(2026, 6, 5)),  # half an hour off
    ("Pacific/Auckland", "NZ", date(2026, 9, 25)),
]
each_city = pytest.mark.parametrize(("timezone", "country", "friday"), CITIES)


def moment_of(slot: int) -> datetime:
    return datetime.fromtimestamp(slot * calendar.SLOT_SECONDS, UTC)


def peaks(rows: pl.DataFrame) -> Iterator[dict[str, object]]:
    """The slot of the largest `height` in each half of each local day."""
    for half in rows.with_columns(morning=pl.col("local_hour") < 12).partition_by("day", "morning"):
        yield half.sort("height", descending=True).row(0, named=True)


@each_city
def test_most_people_are_on_their_way_in_the_rush_hours(timezone: str, country: str, friday: date) -> None:
    """Before and after a change of the clocks."""
    working_days = calendar.calendar([friday, friday + timedelta(days=3)], timezone, country).sort("slot")
    local = LocalClock(timezone, country).at(working_days["slot"].to_numpy() * float(calendar.SLOT_SECONDS))
    for seed in range(5):
        hours = list(peaks(working_days.with_columns(height=pl.Series(demand(local, seed)))))
        assert len(hours) == 4
        assert all(peak["rush_hour"] for peak in hours), hours


@each_city
@pytest.mark.parametrize("kind", ["traffic", "noise", "consumption"])
def test_sensors_peak_in_the_rush_hours(timezone: str, country: str, friday: date, kind: str) -> None:
    flow = Flow(0, LocalClock(timezone, country))
    working_days = calendar.calendar([friday, friday + timedelta(days=3)], timezone, country).sort("slot")
    seconds = working_days["slot"].to_numpy() * float(calendar.SLOT_SECONDS)
    hours = list(peaks(working_days.with_columns(height=pl.Series(conditions(flow, seconds)[kind].mean(1)))))
    assert len(hours) == 4
    assert all(7 <= int(str(peak["local_hour"])) <= 20 for peak in hours), hours


def test_a_holiday_has_as_little_rush_as_a_weekend() -> None:
    clock = LocalClock("America/New_York", "US")
    thanksgiving, day_before = (datetime(2026, 11, day, 13, 30, tzinfo=UTC).timestamp() for day in (26, 25))
    assert not clock.at(thanksgiving).is_workday
    assert clock.at(day_before).is_workday
    assert demand(clock.at(thanksgiving), 0) < 0.6 * demand(clock.at(day_before), 0)


@each_city
def test_local_times_of_many_moments_are_those_of_the_calendar(timezone: str, country: str, friday: date) -> None:
    days = calendar.calendar([friday, friday + timedelta(days=1)], timezone, country).sort("slot")
    local = LocalClock(timezone, country).at(days["slot"].to_numpy() * float(calendar.SLOT_SECONDS))
    assert local.hour.astype(int).tolist() == days["local_hour"].to_list()
    assert local.weekday.tolist() == days["weekday"].to_list()
    assert [to_date(day) for day in local.day.tolist()] == days["day"].to_list()


@each_city
def test_payments_and_shifts_are_of_the_local_hour(timezone: str, country: str, friday: date) -> None:
    clock = LocalClock(timezone, country)
    city, machine = City(0, clock, rate=0.5, cards=1_000), Machine(0, 1, clock)
    shifts = {6: "early", 14: "late", 22: "night", 5: "night", 13: "early", 21: "late"}
    days = calendar.calendar([friday, friday + timedelta(days=1)], timezone, country).sort("slot")
    for row in days.iter_rows(named=True):
        moment = moment_of(row["slot"]).timestamp()
        paid = next(payments.payloads(city, city.events(moment, moment + 300)), None)
        assert paid is None or (paid["hour_of_day"], paid["is_weekend"]) == (row["local_hour"], row["weekday"] > 5)
        if row["local_hour"] in shifts:
            assert SHIFTS[machine.shift(np.array([moment]))[0]] == shifts[row["local_hour"]]


def test_simulators_need_neither_polars_nor_delta() -> None:
    """They are one small process; each of these would double it."""
    code = "import sys, simulators.together, simulators.clock; from city.contracts.registry import domains; "
    code += "[domain.simulator() for domain in domains()]; "
    code += "import simulators.world.local; "
    code += "simulators.world.local.LocalClock('America/New_York', 'US').at(1.8e9); "
    code += "print({'polars', 'deltalake'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
