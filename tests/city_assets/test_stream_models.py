"""Models that score in the stream, in the graph: what was said there is joined with what came."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from benchmarks._payments import START, lived
from city.lake.snapshot import Snapshot
from city.models.champions import Serving
from city.models.exported import Exported
from city.models.model import ModelError
from city.models.registry import Registry
from city.models.train import train
from city.settings import Settings
from city.streaming.sinks.scores import score_rows
from city.tables.model import DAY
from city_assets.champion_predictions import predict_days
from city_assets.payments.contract import PAYMENTS
from city_assets.payments.models import FRAUDS, REPORTED_WITHIN, fraud_message
from city_assets.training import read_truth

MODEL = FRAUDS


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, pl.DataFrame, pl.DataFrame]:
    config = Settings(home=tmp_path_factory.mktemp("home"))
    rows, reports = lived(1)
    quick = replace(MODEL, space=None)
    made = train(quick, rows, Registry(config), data_version=1, now=START + timedelta(days=1), truth=reports)
    assert made.promoted, made.reason
    return config, *lived(2)


def test_frauds_are_told_with_probabilities_that_are_frequencies(
    taught: tuple[Settings, pl.DataFrame, pl.DataFrame],
) -> None:
    version = Registry(taught[0]).at(MODEL.name)
    assert version is not None
    assert 0.6 < version.metrics["model_average_precision"] < 0.95, "thieves buy what owners buy, too"
    assert version.metrics["model_calibration_error"] < 0.01
    assert version.metrics["model_log_loss"] < 0.5 * version.metrics["naive_log_loss"]


def test_what_the_stream_said_is_joined_with_what_came(
    taught: tuple[Settings, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    config, rows, reports = taught
    registry, lake = Registry(config), tmp_path / "lake"
    champion = registry.at(MODEL.name)
    assert champion is not None
    serving = Serving(champion.number, Exported(MODEL, registry.content(champion)))
    calibration = serving.exported.calibration
    assert calibration.threshold is not None
    assert 0 < calibration.threshold < 0.9
    placed = rows.with_row_index("_offset").with_columns(_partition=pl.lit(0, pl.Int32))
    said = score_rows(MODEL, serving, placed, PAYMENTS.topic, rows["timestamp"].max() + timedelta(seconds=1))  # type: ignore[operator]
    assert said["latency_ms"].min() == 1000
    messages = [json.loads(line) for line in fraud_message(said).write_ndjson().splitlines()]
    assert all(m["is_fraud"] == (m["fraud_probability"] >= m["threshold"]) for m in messages)
    categories = said["merchant_category"].to_list()
    assert [m["threshold"] for m in messages] == [calibration.threshold_for(category) for category in categories]
    explained = [m for m in messages if m["feature_contributions"]]
    assert explained == [m for m in messages if m["is_fraud"]][-20:]
    assert all(m["feature_contributions"].keys() == set(MODEL.inputs) for m in explained)
    base = [m["fraud_probability"] - sum(m["feature_contributions"].values()) for m in explained]
    assert base == pytest.approx([base[0]] * 20, abs=1e-3)  # what they have in common is the mean of the background

    write_deltalake(lake / MODEL.view.table.id, rows, partition_by=[DAY])
    days = rows[DAY].unique().to_list()
    assert read_truth(MODEL, Snapshot(lake), START) is None
    assert predict_days(MODEL, Snapshot(lake), registry, days).is_empty()  # nothing was said yet
    record = said.select("id", "card", "timestamp", "for", "version", "prediction", "confidence", "low", "high")
    record = record.with_columns(said["output"], said["latency_ms"], said["inputs"], said[DAY])
    write_deltalake(lake / "scores" / MODEL.name, record, partition_by=[DAY])
    assert (
        predict_days(MODEL, Snapshot(lake), registry, days)["outcome"].null_count() == rows.height
    )  # nobody reported yet
    write_deltalake(lake / MODEL.label.truth, reports)
    predictions = predict_days(MODEL, Snapshot(lake), registry, days)
    assert predictions.height == rows.height
    last = max(rows["timestamp"].max(), reports["timestamp"].max()) - REPORTED_WITHIN  # type: ignore[operator, type-var]
    known = predictions.filter(pl.col("timestamp") <= last)
    assert known["outcome"].null_count() == 0
    assert predictions.filter(pl.col("timestamp") > last)["outcome"].null_count() == predictions.height - known.height
    frauds = known.filter(pl.col("outcome") == "fraud")
    assert (frauds["prediction"] == "fraud").mean() > 0.7  # type: ignore[operator]
    assert known["loss"].mean() < 0.15  # type: ignore[operator]
    assert predictions["id"].is_unique().all()


def test_a_city_in_which_nothing_was_ever_reported_has_nothing_to_tell_apart(
    taught: tuple[Settings, pl.DataFrame, pl.DataFrame],
) -> None:
    config, rows, reports = taught
    with pytest.raises(ModelError, match="one class only"):
        train(MODEL, rows, Registry(config), data_version=2, now=START + timedelta(days=1), truth=reports.head(0))
    assert Registry(config).at(MODEL.name).number == 1  # type: ignore[union-attr]
