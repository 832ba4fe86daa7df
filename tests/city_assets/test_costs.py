"""What is read of a city that is a year old: the old files are made unreadable, and nobody notices."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from city.drift.comparisons import SCHEMA, TABLE, newest_comparisons
from city.features.repository import materialize_views
from city.lake.snapshot import Snapshot
from city.models.examples import newest
from city.models.history import growth, recorded_losses, training_days, training_rows
from city.models.model import Model, ModelError
from city.models.predictions import LOSS, VERSION
from city.models.registry import Registry
from city.settings import Settings
from city.tables.schema import partition_by, schema
from city.web.metrics import newest_drift
from city_assets.champion_predictions import predict_days
from city_assets.monitoring.drift import drifted_features, measure
from city_assets.traffic.models import MODELS
from city_assets.training import train_on
from sensors_and_schedules import retrain as sensor
from tests.city.models.rows import traffic

MODEL = replace(MODELS[-1], space=None, defaults={**MODELS[-1].defaults, "max_iter": 10}, history=timedelta(days=3))
VIEW = MODEL.view
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def put(config: Settings, rows: pl.DataFrame, end: datetime) -> None:
    """Appends rows to the view's table, the last of them at `end`."""
    moved = rows.with_columns(pl.col("as_of") + (end - rows["as_of"].max()))  # type: ignore[operator]
    day = pl.col("as_of").dt.convert_time_zone(config.timezone).dt.date()
    moved = moved.with_columns(window_start=pl.col("as_of") - timedelta(minutes=2), day=day)
    typed = moved.select(pl.col(name).cast(kind) for name, kind in schema(VIEW.table).items())
    write_deltalake(config.lake / VIEW.table.id, typed, mode="append", partition_by=partition_by(VIEW.table))


def age(config: Settings, days: int) -> None:
    """So many days of rows before those that the city has."""
    one = traffic(hours=1, cells=2, seed=9)
    rows = pl.concat(one.with_columns(pl.col("as_of") - timedelta(days=n)) for n in range(days))
    put(config, rows, NOW - timedelta(days=8))


def spoil(table: Path, before: date) -> int:
    """Makes the files of the days before unreadable; how many."""
    files = [file for file in table.glob("day=*/*.parquet") if file.parent.name < f"day={before}"]
    for file in files:
        file.write_bytes(b"not Parquet")
    return len(files)


def test_training_predictions_and_their_sensor_read_what_is_recent(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "declared", lambda: {MODEL.name: MODEL})
    registry = Registry(config)
    age(config, 300)
    put(config, traffic(hours=36, cells=4, seed=1), NOW - timedelta(hours=12))
    put(config, traffic(hours=12, cells=4, seed=2), NOW)
    assert spoil(config.lake / VIEW.table.id, (NOW - timedelta(days=7)).date()) >= 300
    assert [why for _, why in sensor.models_to_train(registry, Snapshot(config.lake), NOW)] == ["first training"]
    trained = train_on(MODEL, Snapshot(config.lake), config, registry)
    assert trained.version.tags["data_version"] == str(DeltaTable(config.lake / VIEW.table.id).version())
    registry.promote(trained.version, "whatever it is worth")
    assert materialize_views(config, timedelta(days=2))[VIEW.name] > 0
    assert measure(VIEW, [MODEL], config.lake, config, registry, NOW) is None, "pinned"
    today = Snapshot(config.lake).rows_by_day(VIEW.table.id)
    recorded = predict_days(MODEL, Snapshot(config.lake), registry, sorted(today)[-2:])
    assert recorded.height == sum(today[day] for day in sorted(today)[-2:])
    later = NOW + timedelta(hours=2)
    assert sensor.models_to_train(registry, Snapshot(config.lake), later) == []
    put(config, traffic(hours=60, cells=4, seed=3), NOW + timedelta(hours=60))
    ((_, why),) = sensor.models_to_train(registry, Snapshot(config.lake), NOW + timedelta(hours=60))
    assert "new labels" in why


def test_a_training_learns_from_the_rows_that_are_declared(config: Settings) -> None:
    by_day = {date(2026, 5, 1) + timedelta(days=n): 100 for n in range(30)}
    assert len(training_days(by_day, MODEL)) == 4, "three days back from the newest"
    assert len(training_days(by_day, replace(MODEL, most_rows=150))) == 2
    assert training_days({}, MODEL) == []
    with pytest.raises(ModelError, match="history of 0:30:00 is too short.*declare at least"):
        replace(MODEL, history=timedelta(minutes=30)).check()


def test_growth_is_counted_to_the_row(config: Settings) -> None:
    put(config, traffic(hours=48, cells=3), NOW)
    rows = pl.read_delta(str(config.lake / VIEW.table.id))["as_of"]
    trained = NOW - timedelta(hours=13, minutes=7)
    grown = growth(MODEL, Snapshot(config.lake), trained, config.timezone)
    assert grown.rows == rows.len()
    assert grown.then == (rows <= trained).sum()
    assert growth(MODEL, Snapshot(config.lake), None, config.timezone).span == rows.max() - rows.min()  # type: ignore[operator]
    few = growth(replace(MODEL, most_rows=50), Snapshot(config.lake), trained, config.timezone)
    assert (few.then, few.rows - few.then) == (50, (rows > trained).sum())


def test_most_rows_are_rows_that_the_model_is_about(config: Settings) -> None:
    """The model is about one cell of four, so its newest 900 rows are of as many days as 3,600 rows of the view."""
    rows = traffic(hours=120, cells=4)
    put(config, rows, NOW)
    snapshot = Snapshot(config.lake)
    whole = replace(MODEL, history=timedelta(days=30), most_rows=900)
    one = replace(whole, where="cell = 'c1'")
    selected = newest(one, training_rows(one, snapshot).collect())
    assert selected.height == 900
    assert selected["cell"].unique().to_list() == ["c1"]
    assert selected["as_of"].min() == selected["as_of"].max() - timedelta(minutes=2 * 899)  # type: ignore[operator]
    later = NOW + timedelta(hours=1)
    counts = [growth(model, snapshot, later, config.timezone).then for model in (whole, one)]
    assert counts == [900, 4 * 900]
    nothing = replace(whole, where="cell = 'nowhere'")
    assert training_rows(nothing, snapshot).collect().is_empty()
    assert growth(nothing, snapshot, later, config.timezone).then == rows.height


def record(config: Settings, model: Model, days: int, a_day: int) -> pl.DataFrame:
    """Predictions of version 1, with growing losses, so many a day."""
    begin = datetime(2026, 3, 1, 12, tzinfo=UTC)
    moments = [begin + timedelta(days=d, seconds=n) for d in range(days) for n in range(a_day)]
    rows = pl.DataFrame({VERSION: 1, "as_of": moments, LOSS: [float(n) for n in range(len(moments))]})
    rows = rows.with_columns(day=pl.col("as_of").dt.date())
    write_deltalake(config.lake / "predictions" / model.name, rows, partition_by=["day"])
    return rows


@pytest.mark.parametrize("a_day", [30, 300, 900])
def test_decay_is_seen_in_the_first_and_the_last_losses(config: Settings, a_day: int) -> None:
    lasting = replace(MODEL, history=timedelta(days=60))
    rows = record(config, lasting, 60, a_day)
    since = rows["as_of"][0] - timedelta(hours=1)
    ends = -(-500 // a_day)
    first, last = rows["day"][0] + timedelta(days=ends), rows["day"][-1] - timedelta(days=ends - 1)
    for file in (config.lake / "predictions" / MODEL.name).glob("day=*/*.parquet"):
        if f"day={first}" <= file.parent.name < f"day={last}":
            file.write_bytes(b"not Parquet")
    losses = recorded_losses(lasting, Snapshot(config.lake), 1, since, config.timezone)
    assert losses is not None
    assert losses[LOSS].head(500).equals(rows[LOSS].head(500))
    assert losses[LOSS].tail(500).equals(rows[LOSS].tail(500))


def compared(config: Settings, view: str, at: datetime, *features: str) -> None:
    """Appends a comparison of a view, in which these features have drifted."""
    measured = {"measure": "ks", "statistic": 1.0, "p_value": 0.0, "effect": 1.0, "drifted": True}
    rows = [{"view": view, "at": at, "feature": feature} | measured for feature in features]
    write_deltalake(config.lake / TABLE, pl.DataFrame(rows, schema=SCHEMA), mode="append")


def test_the_newest_comparisons_are_found_by_the_log(config: Settings) -> None:
    assert newest_drift(config) == []
    compared(config, "gone", NOW - timedelta(days=40), "f")
    for n in range(30, 0, -1):
        compared(config, "v", NOW - timedelta(hours=30 * n), f"f{n}")
    old = list((config.lake / TABLE).glob("*.parquet"))
    compared(config, "w", NOW - timedelta(hours=1), "g")
    compared(config, "v", NOW - timedelta(hours=1), "f0", "f1")
    compared(config, "v", NOW, "f0")
    for file in old:
        file.write_bytes(b"not Parquet")
    assert sorted(newest_drift(config)) == [("v", "f0", "ks", 1.0), ("w", "g", "ks", 1.0)]
    assert newest_comparisons(Snapshot(config.lake)).schema == pl.Schema(SCHEMA)
    assert drifted_features(Snapshot(config.lake), "v") == ("f0",)
    assert drifted_features(Snapshot(config.lake), "w") == ("g",)
