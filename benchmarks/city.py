"""The simulated traffic beside real traffic, and what its models gain: statistics of the simulated cells beside those
of METR-LA's week, and the served speed model 15 minutes ahead on days that it has not seen."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars_h3

from benchmarks._real import real
from city.arrays import Floats
from city.lake.lakehouse import lakehouse
from city.models.examples import inputs, label_rows, labels
from city.models.exported import Exported
from city.models.fitting import fit
from city.models.labels import NAIVE
from city.models.model import Model
from city.settings import Settings
from city.stack.history_plan import HistoryPlan
from city.streaming.history import append_day
from city.tables.neighbours import neighbours
from city.tables.registry import select_tables
from city_assets.environment.contract import SENSORS
from city_assets.traffic.models import speed_model
from simulators import environment, traffic

END = datetime(2026, 5, 20, 4, tzinfo=UTC)
DAYS, TEST_DAYS = 14, 4
"""The days of the history, and how many of the last ones are only tested on."""
MINUTES = 15
_STEP = timedelta(minutes=5)
_LAGS = {"5min": 1, "15min": 3, "30min": 6, "60min": 12}
_NEIGHBOURS = (
    "speed_neighbours",
    "speed_slowest_neighbour",
    "speed_fastest_neighbour",
    "neighbours_change",
    "neighbours_largest_drop",
    "speed_leaders",
    "leaders_change",
)
_WEATHER = ("precipitation", "precipitation_before")
_USUAL = ("speed_usual", "speed_usual_later", "speed_level", "speed_level_std")
_LEAST = 0.9
"""A cell has statistics if it has a speed in so many of the steps by day."""


def run(progress: Callable[[str], None], days: int = DAYS, test_days: int = TEST_DAYS) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = Settings(home=Path(folder), timezone="America/New_York", country="US")
        rows, positions = _simulate(config, days, progress)
        simulated = _statistics(*_cells(positions, config.timezone))
        progress(f"simulated: {simulated}")
        return {
            "bench": "city",
            "days": days,
            "simulated": simulated,
            "metr_la": _statistics(*_detectors()),
            "speed_15": _gains(rows, END - timedelta(days=test_days), progress),
            "test_days": test_days,
        }


def _simulate(config: Settings, days: int, progress: Callable[[str], None]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of the feature view of a simulated history, and the positions that they were made of."""
    plan = HistoryPlan(END, days, config.timezone)
    positions = []
    for module, wanted in ((traffic, None), (environment, SENSORS)):
        for chunk in module.history(config, plan.seed, plan.begin, plan.begin, plan.end):
            if wanted is None or chunk.contract == wanted:
                append_day(config.lake, chunk.contract, chunk.day, chunk.rows)
            if wanted is None:
                positions.append(chunk.rows)
        progress(f"{module.__name__}: simulated")
    lake = lakehouse(config)
    for table in select_tables(["traffic_features"]):
        lake.pinned().build(table, plan.local_days, full=True)
    progress("features: built")
    return pl.read_delta(str(config.lake / "features/traffic_features")), pl.concat(positions)


def _gains(rows: pl.DataFrame, cut: datetime, progress: Callable[[str], None]) -> dict[str, Any]:
    """RMSE and MAE (km/h) of the served model on rows after the cut, and without what it gets from around."""
    model = replace(speed_model(MINUTES), space=None)
    known = label_rows(model, rows.filter(pl.col("as_of") >= cut))
    past = rows.filter(pl.col("as_of") < cut)
    actual = labels(model, known)
    now = _errors(known[NAIVE].to_numpy(), actual)
    variants = {"served": (), "without_neighbours": _NEIGHBOURS, "without_weather": _WEATHER}
    variants |= {"without_both": _NEIGHBOURS + _WEATHER, "without_usual": _USUAL}
    figures: dict[str, Any] = {"rows": known.height, "as_now": now}
    for name, absent in variants.items():
        figures[name] = _errors(
            _fitted(model, absent, past, cut).predict(inputs(_without(model, absent), known)), actual
        )
        figures[name]["gain"] = round(1 - figures[name]["rmse"] / now["rmse"], 4)
        progress(f"{name}: {figures[name]}")
    served = figures["served"]["rmse"]
    for name in ("neighbours", "weather", "both", "usual"):
        figures[f"gain_by_{name}"] = round(1 - served / figures[f"without_{name}"]["rmse"], 4)
    wet = known["precipitation"].fill_null(0).to_numpy() > 0.5
    predicted = _fitted(model, (), past, cut).predict(inputs(model, known))
    dry_model = _fitted(model, _WEATHER, past, cut).predict(inputs(_without(model, _WEATHER), known))
    figures["share_in_rain"] = round(float(wet.mean()), 4)
    figures["gain_by_weather_in_rain"] = round(
        1 - _errors(predicted[wet], actual[wet])["rmse"] / _errors(dry_model[wet], actual[wet])["rmse"], 4
    )
    return figures


def _without(model: Model, absent: tuple[str, ...]) -> Model:
    return replace(model, inputs=tuple(name for name in model.inputs if name not in absent))


def _fitted(model: Model, absent: tuple[str, ...], rows: pl.DataFrame, now: datetime) -> Exported:
    less = _without(model, absent)
    return Exported(less, fit(less, rows, champion=None, now=now).exported)


def _errors(predicted: Floats, actual: Floats) -> dict[str, float]:
    error = predicted - actual
    return {"rmse": round(float(np.sqrt((error**2).mean())), 3), "mae": round(float(np.abs(error).mean()), 3)}


def _cells(positions: pl.DataFrame, timezone: str) -> tuple[Floats, list[datetime], set[tuple[int, int]]]:
    """Mean speeds (t, n) of the busy cells in steps of five minutes, the local times, and which cells touch."""
    cell = polars_h3.latlng_to_cell("latitude", "longitude", 8, return_dtype=pl.String)
    steps = positions.with_columns(cell=cell, step=pl.col("timestamp").dt.truncate("5m"))
    table = steps.group_by("step", "cell").agg(pl.col("speed").mean()).pivot("cell", index="step").sort("step")
    busy = [name for name in table.columns[1:] if table[name].null_count() < (1 - _LEAST) * table.height]
    filled = table.select("step", *busy).with_columns(pl.col(busy).interpolate().forward_fill().backward_fill())
    times = filled["step"].dt.convert_time_zone(timezone).to_list()
    number = {name: n for n, name in enumerate(busy)}
    near = neighbours(pl.Series("cell", busy))
    pairs = {
        (number[a], number[b]) for a, b in near.select("cell", "neighbour").iter_rows() if a in number and b in number
    }
    return filled.select(busy).to_numpy(), times, {pair for pair in pairs if pair[0] < pair[1]}


def _detectors() -> tuple[Floats, list[datetime], set[tuple[int, int]]]:
    """METR-LA's week: speeds (t, n) in steps of five minutes, times from a Thursday's midnight, and what is linked."""
    speeds = pl.read_csv(real("metr_la/los_speed.csv"), infer_schema_length=None).cast(pl.Float64).to_numpy()
    graph = pl.read_csv(real("metr_la/los_adj.csv"), has_header=False, infer_schema_length=None).cast(pl.Float64)
    links = np.argwhere(graph.to_numpy() > 0)
    begin = datetime.combine(date(2012, 3, 1), datetime.min.time())  # as DCRNN's data, of which this is the first week
    times = [begin + n * _STEP for n in range(len(speeds))]
    return speeds, times, {(int(a), int(b)) for a, b in links if a < b}


def _statistics(speeds: Floats, times: list[datetime], pairs: set[tuple[int, int]]) -> dict[str, Any]:
    hour = np.array([time.hour for time in times])
    is_weekend = np.array([time.weekday() >= 5 for time in times])
    standard = (speeds - speeds.mean(0)) / np.maximum(speeds.std(0), 1e-9)
    usual = np.zeros_like(speeds)
    for weekend in (False, True):
        for value in range(24):
            those = (hour == value) & (is_weekend == weekend)
            if those.any():
                usual[those] = speeds[those].mean(0)
    rest = speeds - usual
    rest = (rest - rest.mean(0)) / np.maximum(rest.std(0), 1e-9)
    a, b = np.array(sorted(pairs)).T
    everyone = standard.T @ standard / len(standard)
    away = rest.T @ rest / len(rest)
    chance = np.random.default_rng(0)
    far = chance.integers(0, speeds.shape[1], (2, 4 * len(a)))
    far = far[:, [(x, y) not in pairs and (y, x) not in pairs and x != y for x, y in far.T]]

    def share(morning: tuple[int, int], weekend: bool) -> float:
        rush = speeds[(hour >= morning[0]) & (hour < morning[1]) & (is_weekend == weekend)].mean()
        night = speeds[(hour >= 1) & (hour < 4)].mean()
        return round(float(rush / night), 3)

    return {
        "series": speeds.shape[1],
        "autocorrelation": {
            name: round(float((standard[lag:] * standard[:-lag]).mean()), 3) for name, lag in _LAGS.items()
        },
        "neighbours_correlation": round(float(everyone[a, b].mean()), 3),
        "neighbours_correlation_beyond_the_hour": round(float(away[a, b].mean()), 3),
        "others_correlation_beyond_the_hour": round(float(away[far[0], far[1]].mean()), 3),
        "explained_by_hour": round(float(1 - ((speeds - usual) ** 2).mean() / speeds.var(0).mean()), 3),
        "weekday_morning_to_night": share((7, 10), False),
        "weekday_evening_to_night": share((16, 19), False),
        "weekend_morning_to_night": share((7, 10), True),
        "weekend_evening_to_night": share((16, 19), True),
        "coefficient_of_variation": round(float((speeds.std(0) / speeds.mean(0)).mean()), 3),
    }
