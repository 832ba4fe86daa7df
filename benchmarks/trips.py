"""The congestion of a cell in the next quarter of an hour, by New York's taxi trips: the declared model
`trip_congestion`, on days after those that it learned from.

The trips go the platform's way: `city ingest`, silver, gold, features, `city.models.fitting`, and the exported model
predicts. The test is the newest whole local days with at least 15 % of the rows. Nothing is chosen on them.
"""

import math
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks._real import real
from city.arrays import Floats
from city.lake.lakehouse import Lakehouse, lakehouse
from city.models import examples, judge
from city.models.exported import Exported
from city.models.fitting import FittedModel, fit
from city.models.labels import LABEL, NAIVE
from city.settings import settings
from city.tables.model import DAY
from city.tables.registry import in_order
from city.tables.slices import HOUR
from city_assets.traffic.download import downloaded_zones
from city_assets.traffic.ingest import ingest
from city_assets.traffic.models import TRIP_CONGESTION
from city_assets.traffic.transforms import FREE_KMH, SLOW_KMH, levels
from city_assets.traffic.trip_tables import BRONZE_TRIPS, TRIPS
from city_assets.traffic.trips import ZONES_FILE

TEST = 0.15
_SEARCH_SECONDS = 3_600.0
_FILE = re.compile(r".+\.(csv|csv\.gz|parquet)", re.IGNORECASE)
_TIMEZONE, _COUNTRY = "America/New_York", "US"
_VIEW = TRIP_CONGESTION.view


def run(tell: Callable[[str], None], data: Path | None = None) -> dict[str, Any]:
    """Accuracy and macro F1 on later days, beside the commonest level, "as now", and "as in that hour a week ago";
    and the accuracy that the few trips of a quarter allow. `data` is a folder of months (`city data tlc`)."""
    files = [real("tlc/trips_with_coordinates.parquet")] if data is None else _files(data)
    with tempfile.TemporaryDirectory() as folder:
        rows, trips = _features(files, Path(folder), tell)
    labelled = examples.label_rows(TRIP_CONGESTION, rows)
    begin: date = labelled[DAY][int(labelled.height * (1 - TEST))]
    test = labelled.filter(pl.col(DAY) >= begin)
    fitted = _fit(rows.filter(pl.col(DAY) < begin), tell)
    actual = examples.labels(TRIP_CONGESTION, test)
    output = Exported(TRIP_CONGESTION, fitted.exported).predict(examples.inputs(TRIP_CONGESTION, test))
    scores = judge.metrics(TRIP_CONGESTION, output, actual)
    return {
        "bench": "trips",
        "trips": trips,
        "estimator": fitted.parameters["estimator"],
        "train_rows": fitted.parts.train.height + fitted.parts.validation.height,
        "test_rows": test.height,
        "test_days": f"{begin} to {test[DAY].max()!s}",
        "accuracy": round(scores["accuracy"], 4),
        "macro_f1": round(scores["macro_f1"], 4),
        **_beside(rows, test),
        "before_test": {
            "rows": fitted.parts.held_out.height,
            "accuracy": round(fitted.scores["model"]["accuracy"], 4),
            "macro_f1": round(fitted.scores["model"]["macro_f1"], 4),
            **_beside(rows, fitted.parts.held_out),
        },
    }


def _files(folder: Path) -> list[Path]:
    """The files of trips in a folder. Raises FileNotFoundError where there are none."""
    files = sorted(file for file in folder.iterdir() if _FILE.fullmatch(file.name) and "zone" not in file.name.lower())
    if not files:
        raise FileNotFoundError(f"no file of trips (.csv, .csv.gz, .parquet) in {folder}: `city data tlc 2015-01`")
    return files


def _features(files: list[Path], folder: Path, tell: Callable[[str], None]) -> tuple[pl.DataFrame, int]:
    """The feature view of the files' trips, built in a lake of its own, and the number of possible trips."""
    config = settings().model_copy(update={"timezone": _TIMEZONE, "country": _COUNTRY})
    lake = lakehouse(config, folder)
    days = set[date]()
    for file in files:
        loaded = ingest(file, folder, _TIMEZONE, lambda rows: None, _zones(file))
        tell(f"{file.name}: {loaded.rows:,} trips of {loaded.first} to {loaded.last}")
        if loaded.first and loaded.last:
            days |= {day for day in _days(lake) if loaded.first <= day <= loaded.last}
    for table in in_order(lake.tables, [_VIEW.table.id]):
        if lake.tables[table].transform is not None:
            tell(f"{table}: {lake.build(lake.tables[table], sorted(days)).rows:,} rows")
    # Sorted, because a forest depends on the order of its rows, and a build writes them in any order.
    rows = pl.read_delta(str(lake.path(_VIEW.table.id))).sort(_VIEW.time, *_VIEW.entities)
    return rows, lake.count(TRIPS)


def _zones(file: Path) -> Path | None:
    """The downloaded table of zones, where none is beside the file."""
    return None if file.with_name(ZONES_FILE).exists() else downloaded_zones(settings())


def _days(lake: Lakehouse) -> list[date]:
    return sorted(day for day in lake.rows_by_day(BRONZE_TRIPS) if day is not None)


def _fit(rows: pl.DataFrame, tell: Callable[[str], None]) -> FittedModel:
    """Fits the declared model on rows before the test, whose newest 15 % it holds out.

    The search has the time for all its trials, so that a busy machine does not choose another estimator.
    """
    return fit(
        replace(TRIP_CONGESTION, search_seconds=_SEARCH_SECONDS),
        rows,
        champion=None,
        now=datetime.now(UTC),
        progress=tell,
    )


def _beside(rows: pl.DataFrame, test: pl.DataFrame) -> dict[str, Any]:
    """What the model's figures are compared with, on the same rows."""
    levels_there = dict(test[LABEL].value_counts().sort(LABEL).iter_rows())
    week_ago, is_known = _as_a_week_ago(rows, test)
    return {
        "levels": levels_there,
        "commonest_accuracy": round(max(levels_there.values()) / test.height, 4),
        "now_accuracy": _accuracy(test[NAIVE], test),
        "now_macro_f1": _macro_f1(test[NAIVE], test),
        "week_ago_accuracy": _accuracy(week_ago, test),
        "week_ago_macro_f1": _macro_f1(week_ago, test),
        "week_ago_share": round(float(is_known.mean()), 4),  # type: ignore[arg-type]
        "accuracy_bound": round(float(_same_level(rows, test).mean()), 4),
    }


def _as_a_week_ago(rows: pl.DataFrame, test: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """The level of the same cell, weekday and hour as the quarter to predict, and whether a week ago has one.

    Where a week ago has none, it is that of the mean of that hour and weekday before the test's first day; where that
    has none either, the commonest level before.
    """
    local = pl.col("as_of").dt.convert_time_zone(_TIMEZONE)
    wanted = test.select(
        "cell", _day=local.dt.date(), _hour=local.dt.hour().cast(pl.Int64), _weekday=local.dt.weekday()
    )
    wanted = wanted.with_columns(pl.col("_weekday").cast(pl.Int64))
    mean = (pl.col("speed_mean") * pl.col("trips")).sum() / pl.col("trips").sum()
    hours = rows.group_by("cell", _day=pl.col(DAY) + timedelta(days=7), _hour=HOUR).agg(_week_ago=mean)
    before = rows.filter(pl.col(DAY) < test[DAY].min())
    usual = before.group_by("cell", _weekday="weekday", _hour=HOUR).agg(_usual=mean)
    known = wanted.join(hours, on=["cell", "_day", "_hour"], how="left", maintain_order="left").join(
        usual, on=["cell", "_weekday", "_hour"], how="left", maintain_order="left"
    )
    level = levels(pl.coalesce("_week_ago", "_usual"), pl).fill_null(
        examples.label_rows(TRIP_CONGESTION, before)[LABEL].mode().sort().first()
    )
    return known.select(level.alias(LABEL))[LABEL], known["_week_ago"].is_not_null()


def _same_level(rows: pl.DataFrame, labelled: pl.DataFrame) -> Floats:
    """The probability that the mean of as many other trips of the same cell and quarter has the same level.

    The mean of n trips is normal with the standard error s / sqrt(n). Nobody who knows the cell's true mean, and not
    which trips will be there, predicts the level more often.
    """
    ahead = TRIP_CONGESTION.label.ahead
    later = rows.select("cell", "speed_mean", "speed_std", "trips", as_of=pl.col("as_of") - ahead)
    outcome = labelled.select("cell", "as_of").join(later, on=["cell", "as_of"], maintain_order="left")
    mean = outcome["speed_mean"].to_numpy()
    error = np.maximum((outcome["speed_std"] / outcome["trips"].sqrt()).to_numpy(), 1e-9)
    below = [_normal((limit - mean) / error) for limit in (SLOW_KMH, FREE_KMH)]
    shares = np.stack([below[0], below[1] - below[0], 1 - below[1]], 1)
    return shares[np.arange(len(mean)), np.digitize(mean, [SLOW_KMH, FREE_KMH])]


def _normal(z: Floats) -> Floats:
    return np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in z])


def _accuracy(predicted: pl.Series, test: pl.DataFrame) -> float:
    return round(float((predicted == test[LABEL]).fill_null(value=False).mean()), 4)  # type: ignore[arg-type]


def _macro_f1(predicted: pl.Series, test: pl.DataFrame) -> float:
    from sklearn.metrics import f1_score

    classes = list(TRIP_CONGESTION.label.classes)
    return round(
        float(f1_score(test[LABEL], predicted.fill_null("none"), labels=classes, average="macro", zero_division=0)), 4
    )
