"""What the asset graph learns of the stream's tables."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from city.contracts.schema import TIMESTAMP
from city.settings import Settings
from city.stack.state import STREAM, read_json
from city.streaming.job import StreamJob
from city_assets import keys, stream_growth
from city_assets.stream_growth import ReportedGrowth
from city_assets.traffic.contract import VEHICLE_POSITIONS
from resources.lake import LakeResource
from tests.city_assets.test_bronze import now_positions, stream_in

BRONZE, QUARANTINE = keys.bronze(VEHICLE_POSITIONS), keys.quarantine(VEHICLE_POSITIONS)
# Four in the morning in UTC is still the day before in New York, in summer.
DAYS = [datetime(2026, 5, 2, hour, tzinfo=UTC) for hour in (3, 5)]
NOON = datetime(2026, 5, 2, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def lake(config: Settings) -> LakeResource:
    return LakeResource(path=str(config.lake))


def times(*moments: datetime) -> pl.Series:
    return pl.Series(moments, dtype=TIMESTAMP)


def written(job: StreamJob) -> dict[str, Any]:
    job.write_report()
    report = read_json(job.config, STREAM)
    assert report is not None
    return report


def take(growth: ReportedGrowth, job: StreamJob, lake: LakeResource, now: float = NOON) -> list[tuple[Any, str | None]]:
    counts = growth.take_events([VEHICLE_POSITIONS], written(job), lake, now)
    return [(event.asset_key, event.partition) for event in counts]


def test_the_days_that_grew_are_reported_and_only_those(lake: LakeResource, config: Settings) -> None:
    stream_in(lake, VEHICLE_POSITIONS, [*now_positions(3), b"\xff"])
    job = StreamJob([VEHICLE_POSITIONS], config)
    report = job.pipelines[0].report
    report.lag = 7
    report.record_commit(times(*DAYS, DAYS[1]), 1, arrivals=times(DAYS[1]))
    growth = ReportedGrowth()
    events = growth.take_events([VEHICLE_POSITIONS], written(job), lake, NOON)
    assert [(event.asset_key, event.partition) for event in events] == [
        (BRONZE, "2026-05-01"),
        (BRONZE, "2026-05-02"),
        (QUARANTINE, "2026-05-02"),
    ]
    assert events[0].metadata["lag"].value == 7
    assert events[0].metadata["dagster/row_count"].value == 3
    growth = ReportedGrowth(**json.loads(json.dumps(growth.content())))
    assert take(growth, job, lake) == [], "as read from the sensor's cursor"
    stream_in(lake, VEHICLE_POSITIONS, now_positions(2), first=4)
    report.record_commit(times(DAYS[1]), 0)
    (event,) = growth.take_events([VEHICLE_POSITIONS], written(job), lake, NOON + 60)
    assert (event.asset_key, event.partition, event.metadata["dagster/row_count"].value) == (BRONZE, "2026-05-02", 5)
    assert ["newest" in e.metadata for e in (*events, event)] == [True, True, True, False], "seldom: it is large"


def test_a_new_process_continues_what_the_one_before_could_not_report(lake: LakeResource, config: Settings) -> None:
    before = StreamJob([VEHICLE_POSITIONS], config)
    before.pipelines[0].report.record_commit(times(*DAYS), 0)
    before.write_report(ended=True)
    after = StreamJob([VEHICLE_POSITIONS], config)
    after.stop.set()
    after.run()
    growth = ReportedGrowth()
    assert take(growth, after, lake) == [(BRONZE, "2026-05-01"), (BRONZE, "2026-05-02")]
    assert take(growth, after, lake) == []


def test_a_table_that_cannot_be_read_is_reported_later_and_keeps_no_other_back(
    lake: LakeResource, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = StreamJob([VEHICLE_POSITIONS], config)
    job.pipelines[0].report.record_commit(times(DAYS[0]), 1, arrivals=times(DAYS[1]))
    growth, broken = ReportedGrowth(), [True]

    def count(path: Path) -> int:
        if broken and "bronze" in path.parts:
            raise OSError("Input/output error")
        return 0

    monkeypatch.setattr(stream_growth, "row_count", count)
    assert take(growth, job, lake) == [(QUARANTINE, "2026-05-02")]
    broken.clear()
    assert take(growth, job, lake) == [(BRONZE, "2026-05-01")]


def test_of_many_days_the_rest_is_reported_the_next_time(
    lake: LakeResource, config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_growth, "_EVENTS", 1)
    job = StreamJob([VEHICLE_POSITIONS], config)
    job.pipelines[0].report.record_commit(times(*DAYS), 1, arrivals=times(DAYS[1]))
    growth = ReportedGrowth()
    counts = [take(growth, job, lake) for _ in range(4)]
    assert counts == [[(BRONZE, "2026-05-01")], [(BRONZE, "2026-05-02")], [(QUARANTINE, "2026-05-02")], []]


def test_the_growth_of_yesterday_is_no_longer_in_the_report(config: Settings) -> None:
    report = StreamJob([VEHICLE_POSITIONS], config).pipelines[0].report
    report.record_commit(times(DAYS[0]), 0, now=NOON)
    report.record_commit(times(DAYS[1]), 0, now=NOON + 3_600)
    assert set(report.recently_grown(NOON + 3_600)["bronze"]) == {"2026-05-01", "2026-05-02"}
    assert set(report.recently_grown(NOON + 88_000)["bronze"]) == {"2026-05-02"}
