"""The features of a cell's windows, and what is learned about cells from the days before: the transforms alone."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from city.features.plan import Plan
from city.streaming.sinks.features import LOOK_BACK
from city.tables.calendar import calendar
from city.tables.schema import schema
from city_assets.environment.contract import SENSORS
from city_assets.traffic.cell_features import LEARNED_DAYS, PAST
from city_assets.traffic.cell_links import CHANGE
from city_assets.traffic.cell_tables import (
    LEADERS,
    PAIR_CHANGES,
    ROAD_LINKS,
    SPEEDS_HOURLY,
    TRAFFIC_FEATURES,
    USUAL_SPEEDS,
)
from city_assets.traffic.contract import CELL_WINDOW

DAY = date(2026, 5, 5)
BEGIN = datetime(2026, 5, 5, tzinfo=UTC)
CELLS = [f"c{number}" for number in range(6)]
RAIN = next(window for window in SENSORS.windows if window.name == "location_precipitation")


def windows(speeds: np.ndarray, begin: datetime = BEGIN) -> pl.DataFrame:
    """Windows of speeds (steps, cells) from `begin` on."""
    starts = [begin + number * CELL_WINDOW.every for number in range(len(speeds))]
    return pl.DataFrame(
        {
            "window_start": [start for start in starts for _ in CELLS],
            "cell": CELLS * len(speeds),
            "vehicle_count": 3,
            "positions": 9,
            "speed_mean": speeds.ravel(),
            "speed_std": 1.0,
            "day": DAY,
        },
        schema_overrides={"window_start": pl.Datetime("us", "UTC")},
    )


def wander(steps: int, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return 30 + chance.normal(size=(steps, len(CELLS))).cumsum(0).clip(-25, 25)


def links(*pairs: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(list(pairs), schema=schema(ROAD_LINKS), orient="row")


def features(
    rows: pl.DataFrame,
    roads: pl.DataFrame | None = None,
    leaders: pl.DataFrame | None = None,
    usual: pl.DataFrame | None = None,
    neighbours: pl.DataFrame | None = None,
) -> pl.DataFrame:
    rain = {"window_start": pl.Datetime("us", "UTC"), "location": pl.String(), "precipitation_mean": pl.Float64()}
    frames = {
        "windows": rows,
        "neighbours": links() if neighbours is None else neighbours,
        "road_links": links() if roads is None else roads,
        "leaders": pl.DataFrame(schema=schema(LEADERS)) if leaders is None else leaders,
        "usual": pl.DataFrame(schema=schema(USUAL_SPEEDS)) if usual is None else usual,
        "precipitation": pl.DataFrame(schema=rain),
        "calendar": calendar([DAY - timedelta(days=1), DAY], "UTC", "US"),
    }
    return Plan(TRAFFIC_FEATURES).run(frames).sort("as_of", "cell")


def test_features_use_the_windows_that_the_stream_keeps_and_no_others() -> None:
    speeds, roads = wander(30), links(*((a, b) for a in CELLS for b in CELLS if a != b))
    assert max(*PAST, CHANGE) == LOOK_BACK
    newest = features(windows(speeds), roads).tail(len(CELLS))
    kept = features(windows(speeds).tail((LOOK_BACK + 1) * len(CELLS)), roads).tail(len(CELLS))
    assert_frame_equal(newest, kept)
    changed = speeds.copy()
    changed[-1 - LOOK_BACK, 0] += 9
    assert not newest.equals(features(windows(changed), roads).tail(len(CELLS)))


def test_statistics_are_those_of_the_past_windows() -> None:
    speeds = wander(20)
    row = features(windows(speeds)).tail(len(CELLS)).row(2, named=True)
    past = speeds[[-1, *(-1 - lag for lag in PAST)], 2]
    expected = {"mean": past.mean(), "std": past.std(), "min": past.min(), "max": past.max()}
    assert {name: row[f"speed_past_{name}"] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert row["speed_city"] == pytest.approx(speeds[-1].mean(), abs=1e-6)
    assert row["speed_city_before"] == pytest.approx(speeds[-1 - CHANGE].mean(), abs=1e-6)


def test_cells_without_road_links_have_the_cells_around_them() -> None:
    speeds = wander(8)
    around = links(("c0", "c1"), ("c1", "c0"))
    rows = features(windows(speeds), links(("c0", "c4"), ("c0", "c5")), neighbours=around).tail(len(CELLS))
    assert rows["speed_neighbours"][0] == pytest.approx(speeds[-1, 4:].mean(), abs=1e-6)
    assert rows["speed_fastest_neighbour"][0] == pytest.approx(speeds[-1, 4:].max(), abs=1e-6)
    change = speeds[-1] - speeds[-1 - CHANGE]
    assert rows["neighbours_largest_drop"][0] == pytest.approx(change[4:].min(), abs=1e-6)
    assert rows["speed_neighbours"][1] == pytest.approx(speeds[-1, 0], abs=1e-6)
    assert rows["speed_neighbours"][2] is None


def learn_leaders(speeds: np.ndarray) -> pl.DataFrame:
    frames = {
        "windows": windows(speeds),
        "neighbours": links(),
        "road_links": links(*((a, b) for a in CELLS for b in CELLS if a != b)),
        "calendar": calendar([DAY], "UTC", "US"),
    }
    return Plan(LEADERS).run({"pairs": Plan(PAIR_CHANGES).run(frames)})


def test_a_leader_is_a_cell_whose_changes_come_before() -> None:
    speeds = wander(700)
    speeds[CHANGE:, 5] = speeds[:-CHANGE, 2]
    known = learn_leaders(speeds).filter(pl.col("day") == DAY, pl.col("cell") == "c5").sort("weight")
    assert known["neighbour"][-1] == "c2"
    assert known["weight"][-1] == pytest.approx(1, abs=1e-3)
    assert (known["weight"][:-1] < 0.5).all()
    today = known.with_columns(day=pl.lit(DAY - timedelta(days=1)))
    row = features(windows(speeds), leaders=today).filter(pl.col("cell") == "c5").row(-1, named=True)
    weights = dict(known.select("neighbour", "weight").iter_rows())
    expected = np.average([speeds[-1, CELLS.index(cell)] for cell in weights], weights=list(weights.values()))
    assert row["speed_leaders"] == pytest.approx(expected, abs=1e-5)


def test_the_last_hour_of_a_day_changes_nothing_that_was_learned_from_it() -> None:
    speeds = wander(720)
    other = speeds.copy()
    other[23 * 30 :] = 5
    for name in ("leaders", "usual"):
        learn = learn_leaders if name == "leaders" else learn_usual
        of_day = [learn(each).filter(pl.col("day") == DAY).sort(pl.all()) for each in (speeds, other)]
        assert of_day[0].height > 10, name
        assert_frame_equal(*of_day)


def learn_usual(speeds: np.ndarray) -> pl.DataFrame:
    frames = {"windows": windows(speeds), "calendar": calendar([DAY], "UTC", "US")}
    return Plan(USUAL_SPEEDS).run({"hours": Plan(SPEEDS_HOURLY).run(frames)})


def test_the_usual_speed_is_that_of_the_day_before_and_runs_from_hour_to_hour() -> None:
    hours = np.repeat(np.arange(24.0), 30)
    usual = learn_usual(np.tile(hours[:, None], len(CELLS)))
    assert usual.filter(pl.col("day") == DAY, pl.col("local_hour") == 23).is_empty()
    before = usual.with_columns(pl.col("day").dt.offset_by("-1d"))
    rows = features(windows(wander(720)), usual=before).filter(pl.col("cell") == "c0")
    noon = rows.filter(pl.col("as_of") == BEGIN + timedelta(hours=12)).row(0, named=True)
    assert noon["speed_usual"] == pytest.approx(11.5)  # half way from the middle of one hour to that of the next
    assert noon["speed_usual_later"] == pytest.approx(11.75)
    assert noon["speed_level"] == pytest.approx(11)
    assert features(windows(wander(8)), usual=usual)["speed_usual"].null_count() == 8 * len(CELLS), (
        "not of the day itself"
    )


def usual_of(speed: float, ago: int) -> pl.DataFrame:
    """The usual speed of all hours, built so many days ago."""
    usual = learn_usual(np.full((720, len(CELLS)), speed)).filter(pl.col("day") == DAY)
    return usual.with_columns(day=pl.lit(DAY - timedelta(days=ago)))


def test_the_newest_built_day_is_used_until_a_newer_one_is_built() -> None:
    def speeds(*usual: pl.DataFrame) -> set[float | None]:
        return set(features(windows(wander(8)), usual=pl.concat(usual))["speed_usual"])

    assert speeds(usual_of(20, 3), usual_of(30, 5)) == {20.0}
    assert speeds(usual_of(20, 1), usual_of(30, 3), usual_of(40, 0)) == {20.0}
    assert speeds(usual_of(20, LEARNED_DAYS), usual_of(30, LEARNED_DAYS + 1)) == {20.0}
    assert speeds(usual_of(30, LEARNED_DAYS + 1)) == {None}
