"""Speeds of Los Angeles' road detectors 5, 10 and 15 minutes ahead, by T-GCN's protocol: the first 80 % of the week to
train, 12 steps in, 3 steps out.

The models are those that the traffic domain declares and serves, on the features of its own transform, with their
declared default parameters. Nothing is searched, so the result does not depend on the speed of the machine.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks._detectors import DETECTOR_SPEEDS, FEATURES, WINDOW, WINDOWS, ZONE, build_lake
from benchmarks._served import judge_by_protocol, on_public_data
from city.arrays import Floats
from city.features.plan import Plan
from city.features.views import View
from city.lake.lakehouse import Lakehouse
from city.models.examples import inputs, labels
from city.models.exported import Exported
from city.models.fitting import FittedModel
from city.models.labels import FutureValue
from city.models.model import Model
from city.streaming.sinks.features import State, features
from city.tables.model import DAY, Source, Table
from city.tables.schema import schema
from city_assets.traffic.cell_tables import ROAD_LINKS
from city_assets.traffic.models import CONGESTION, MINUTES_AHEAD, speed_model
from city_assets.traffic.transforms import levels

TRAIN = 0.8
STEPS_IN, STEPS_OUT = 12, 3
KMH_PER_MPH = 1.609344
# mph. Below 35 a freeway has excessive delay (23 CFR 490.705); from 50 on, 85 % of the posted 60, it flows freely
# (Washington State DOT, Corridor Capacity Report).
HIGH, LOW = 35.0, 50.0
SAMPLED_STEPS = 40
"""The test steps of which the online features are compared with the table's."""
PUBLISHED = {
    "T-GCN": {"rmse": 5.13, "mae": 3.18},
    "GRU": {"rmse": 5.22, "mae": 3.06},
    "SVR": {"rmse": 6.01, "mae": 3.73},
    "ARIMA": {"rmse": 10.04, "mae": 7.68},
}


def run(tell: Callable[[str], None]) -> dict[str, Any]:
    """RMSE and MAE (mph) over the three steps, and of congestion (low, medium, high) 15 minutes ahead the accuracy
    and the macro F1; beside them those of "as it is now", and how the online features differ from the table's."""
    with tempfile.TemporaryDirectory() as folder:
        house = build_lake(Path(folder), tell)
        rows = house.read(FEATURES).to_native().collect().sort("as_of", "cell")
        times = rows["as_of"].unique().sort()
        held_out_from = times[int(len(times) * TRAIN)]
        judged = times[int(len(times) * TRAIN) + STEPS_IN - 1 : -STEPS_OUT]
        models = [_on_detectors(speed_model(minutes)) for minutes in MINUTES_AHEAD]
        fitted = [judge_by_protocol(model, rows, held_out_from, tell=tell) for model in models]
        congestion = _on_detectors(_congestion_of_freeways())
        levels_fitted = judge_by_protocol(congestion, rows, held_out_from, tell=tell)
        speeds = [_judged(model, result, judged) for model, result in zip(models, fitted, strict=True)]
        predicted, actual, now = (np.concatenate(values) / KMH_PER_MPH for values in zip(*speeds, strict=True))
        accuracy = _congestion(congestion, levels_fitted, judged)
        online = _online(house, rows, models[-1], fitted[-1].exported, judged)
    return {
        "bench": "metr-la",
        "rmse": round(_rmse(predicted, actual), 3),
        "mae": round(float(np.abs(predicted - actual).mean()), 3),
        "now_rmse": round(_rmse(now, actual), 3),
        "now_mae": round(float(np.abs(now - actual).mean()), 3),
        **accuracy,
        "online": online,
        "published": PUBLISHED,
    }


def _on_detectors(declared: Model) -> Model:
    """Returns a declared model for the detectors, with its default parameters."""
    return replace(on_public_data(declared, FEATURES), space=None)


def _congestion_of_freeways() -> Model:
    """Returns the declared model of congestion, with the limits of a freeway."""
    label = CONGESTION.label
    assert isinstance(label, FutureValue)
    slow, free = HIGH * KMH_PER_MPH, LOW * KMH_PER_MPH
    return replace(CONGESTION, label=replace(label, transform=lambda speed: levels(speed, pl, slow, free)))


def _is_judged(model: Model, result: FittedModel, judged: pl.Series) -> tuple[pl.DataFrame, Floats]:
    """Returns the held-out rows that the protocol judges, and the predictions for them."""
    mask = result.parts.held_out[model.view.time].is_in(judged.implode())
    return result.parts.held_out.filter(mask), result.predicted[mask.to_numpy()]


def _judged(model: Model, result: FittedModel, judged: pl.Series) -> tuple[Floats, Floats, Floats]:
    """Returns the predicted speeds (n,), those that came, and those of the present, in km/h."""
    rows, predicted = _is_judged(model, result, judged)
    return predicted, labels(model, rows), rows["speed_mean"].to_numpy()


def _congestion(model: Model, result: FittedModel, judged: pl.Series) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    rows, probabilities = _is_judged(model, result, judged)
    actual = labels(model, rows)
    now = rows["_naive"].cast(pl.Enum(model.label.classes)).to_physical().to_numpy()
    return {
        f"{name}congestion_{measure}": round(float(value), 4)
        for name, level in (("", probabilities.argmax(1)), ("now_", now))
        for measure, value in (
            ("accuracy", accuracy_score(actual, level)),
            ("macro_f1", f1_score(actual, level, average="macro")),
        )
    }


def _online(house: Lakehouse, rows: pl.DataFrame, model: Model, exported: bytes, judged: pl.Series) -> dict[str, float]:
    """Compares the table's rows with those that the stream's function makes of the newest windows, at some steps."""
    windows = _read(house, WINDOWS)
    stored = {
        name: _read(house, house.tables[source.table])
        for name, source in FEATURES.sources.items()
        if _is_stored(source)
    }
    stored |= {
        name: pl.DataFrame(schema=schema(house.tables[source.table]))
        for name, source in FEATURES.sources.items()
        if source.is_context
    }
    serving, plan, view = Exported(model, exported), Plan(FEATURES), View(FEATURES)
    compared, features_differ, predictions_differ = 0, 0.0, 0.0
    for as_of in judged.gather_every(max(1, len(judged) // SAMPLED_STEPS)):
        state = State({WINDOW.name: WINDOW})
        state.put(WINDOW.name, windows.filter(pl.col("window_start") < as_of).drop(DAY))
        online = features(view, DETECTOR_SPEEDS, state, ZONE, "US", plan, stored)
        online = online.filter(pl.col("as_of") == as_of).sort("cell")
        offline = rows.filter(pl.col("as_of") == as_of).sort("cell")
        assert online["cell"].equals(offline["cell"])
        x, x_offline = inputs(model, online), inputs(model, offline)
        assert np.array_equal(np.isnan(x), np.isnan(x_offline))
        compared += len(x)
        features_differ = max(features_differ, float(np.nanmax(np.abs(x - x_offline))))
        difference = np.abs(serving.predict(x) - serving.predict(x_offline)) / KMH_PER_MPH
        predictions_differ = max(predictions_differ, float(difference.max()))
    return {
        "rows": compared,
        "largest_difference_of_a_feature": features_differ,
        "largest_difference_of_a_prediction_mph": predictions_differ,
    }


def _is_stored(source: Source) -> bool:
    return source.is_settled or source.table == ROAD_LINKS.id


def _read(house: Lakehouse, table: Table) -> pl.DataFrame:
    """Reads a table of the lake, without the columns that only transforms need."""
    rows: pl.DataFrame = house.read(table).to_native().select(*schema(table)).collect()
    return rows


def _rmse(predicted: Floats, actual: Floats) -> float:
    return float(np.sqrt(np.mean((predicted - actual) ** 2)))
