"""Histories of a city in which everything happens at once: late rows, appends within a build or a move, crashes and
compactions. Nothing is lost, and nothing is there twice, after every step.

CITY_HISTORIES is how many are played (20). A history is a function of its number.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from city import local_time
from city.lake import cold
from city.lake.cold import archive
from city.lake.engines.polars import PolarsEngine
from city.lake.lakehouse import Lakehouse
from city.lake.location import cold_location
from city.lake.snapshot import Snapshot
from city.settings import Settings
from city.tables.registry import table_of
from city_assets.traffic.contract import VEHICLE_POSITIONS as CONTRACT
from tests.events import iso
from tests.lakes import house, stream

HISTORIES = int(os.environ.get("CITY_HISTORIES", "20"))
SILVER = table_of(f"silver/{CONTRACT.name}")
BEGIN = datetime(2026, 5, 10, 3, tzinfo=UTC)
PLACE = {"latitude": 40.75, "longitude": -73.98, "speed": 12.5}
KEEP = timedelta(days=2)


class Killed(BaseException):
    """The process is gone."""


class Busy(PolarsEngine):
    """Something happens between two reads."""

    def __init__(self, between: Callable[[], None]) -> None:
        self._between = between

    def collect(self, frame: Any) -> pl.DataFrame:
        frame_rows = super().collect(frame)
        self._between()
        return frame_rows


@dataclass
class City:
    """A lake, and what it must hold."""

    config: Settings
    chance: random.Random
    now: datetime = BEGIN
    sent: list[tuple[str, datetime]] = field(default_factory=list)
    due: set[date] = field(default_factory=set)

    @property
    def lake(self) -> Lakehouse:
        return house(self.config)

    def append(self) -> None:
        """A batch: events of the last hours, some days late, one of them at times twice."""
        moments = [
            self.now - timedelta(minutes=self.chance.randrange(300))
            if self.chance.random() < 0.6
            else self.now - timedelta(minutes=self.chance.randrange(4 * 24 * 60))
            for _ in range(self.chance.randrange(1, 6))
        ]
        if self.chance.random() < 0.3:
            moments.append(moments[0])
        rows = [(f"v{self.chance.randrange(4)}", moment) for moment in moments]
        events = [{"vehicle_id": key, "timestamp": iso(moment), **PLACE} for key, moment in rows]
        stream(self.config.lake, CONTRACT, events, self.now)
        self.sent += rows
        self.due |= {local_time.local_day(moment, self.config.timezone) for _, moment in rows}

    def build(self, between: Callable[[], None] = lambda: None) -> None:
        """What is due when it begins; rows that come while it reads make their days due again."""
        days, self.due = sorted(self.due), set()
        lake = self.lake
        full = self.chance.random() < 0.2
        replace(lake, engine=Busy(between)).build(SILVER, days, full=full)

    def archive(self) -> None:
        archive(CONTRACT, self.config.lake, cold_location(self.config), KEEP, self.now)

    def compact(self) -> None:
        DeltaTable(self.lake.path(f"bronze/{CONTRACT.name}")).optimize.compact()

    def check(self) -> None:
        """Every row that was sent is in bronze or in cold storage, once."""
        snapshot = Snapshot(self.config.lake, cold_location(self.config))
        end = self.now + timedelta(minutes=1)
        held = snapshot.events(CONTRACT, BEGIN - timedelta(days=9), end).collect().sort("_offset")
        assert held["_offset"].to_list() == list(range(len(self.sent)))
        assert list(zip(held["vehicle_id"], held["timestamp"], strict=True)) == self.sent

    def check_silver(self) -> None:
        """Each vehicle and time is in silver once, of archived days too, as it is and built anew."""
        wanted = sorted(set(self.sent))
        for full in (False, True):
            rows = pl.read_delta(str(self.lake.path(SILVER.id))).select("vehicle_id", "timestamp")
            assert sorted(rows.iter_rows()) == wanted
            days = {local_time.local_day(moment, self.config.timezone) for _, moment in self.sent}
            if not full:
                self.lake.build(SILVER, sorted(days), full=True)


@contextmanager
def during(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> Iterator[None]:
    """It happens when rows have been written to cold storage, and are still in bronze; or when bronze was read, and
    what it says of cold storage was mended."""

    def then(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            happens()
            return result

        return called

    with monkeypatch.context() as patched:
        for name in ("write_deltalake", "record", "recover"):
            patched.setattr(cold, name, then(getattr(cold, name)))
        yield


def seldom(chance: random.Random, happens: Callable[[], None], share: float) -> Callable[[], None]:
    """At most twice, or a move would never come to its end."""
    left = [2]

    def maybe() -> None:
        if left[0] and chance.random() < share:
            left[0] -= 1
            happens()

    return maybe


def kill() -> None:
    raise Killed


def play(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = city.chance
    # In half of them a build takes so long that it pins its tables anew between two days.
    monkeypatch.setattr("city.lake.snapshot._LONGEST_SECONDS", chance.choice([0.0, 3600.0]))
    city.append()
    for _ in range(chance.randrange(6, 12)):
        step = chance.choice(["append", "append", "build", "build", "archive", "archive", "compact", "later"])
        if step == "append":
            city.append()
        elif step == "build":
            city.build(seldom(chance, city.append, 0.7))
        elif step == "archive":
            happens = chance.choice([city.append, city.compact, kill, lambda: None])
            with during(monkeypatch, seldom(chance, happens, 0.6)), suppress(Killed):
                city.archive()
        elif step == "compact":
            city.compact()
        else:
            city.now += timedelta(hours=chance.randrange(1, 40))
        city.check()
    city.archive()
    city.check()
    city.build()
    city.check_silver()


@pytest.mark.usefixtures("unmeasured")
def test_nothing_is_lost_whatever_comes_between(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(HISTORIES):
        home = Path(tempfile.mkdtemp(dir=config.home))
        city = City(config.model_copy(update={"home": home}), random.Random(seed))
        try:
            play(city, monkeypatch)
        except BaseException as error:
            error.add_note(f"history {seed}")
            raise
        shutil.rmtree(home)


def test_an_event_that_comes_between_two_reads_of_a_build_is_in_the_next(config: Settings) -> None:
    """One for an hour that had no news, and after it one for an hour that had: the second must not hide the first."""
    city = City(config, random.Random(0))
    hour = datetime(2026, 5, 10, 2, tzinfo=UTC)

    def event(minutes: int, key: str) -> None:
        moment = hour + timedelta(minutes=minutes)
        stream(config.lake, CONTRACT, [{"vehicle_id": key, "timestamp": iso(moment), **PLACE}], BEGIN)
        city.sent.append((key, moment))
        city.due.add(local_time.local_day(moment, config.timezone))

    event(5, "v1")

    def between() -> None:
        if len(city.sent) == 1:
            event(-30, "v2")
            event(10, "v3")

    days = sorted(city.due)
    replace(city.lake, engine=Busy(between)).build(SILVER, days)
    city.lake.build(SILVER, days)
    city.check_silver()


def test_a_row_that_comes_late_while_others_are_archived_stays(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = City(config, random.Random(1))
    for _ in range(4):
        city.append()
    with during(monkeypatch, seldom(city.chance, city.append, 1.0)):
        city.archive()
    city.check()
    city.archive()
    city.check()
