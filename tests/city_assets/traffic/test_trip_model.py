"""The model of taxi trips in the graph: a month that was ingested trains it, and without trips nobody hears of it."""

from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from benchmarks._trips import write_month
from city.contracts.registry import domain_of
from city.features.freshness import FeatureFreshness
from city.lake.snapshot import Snapshot
from city.models.labels import FutureValue
from city.models.registry import Registry
from city.settings import Settings
from city.stack.history_plan import HistoryPlan
from city.tables.registry import table_of
from city_assets import history
from city_assets.definitions import build
from city_assets.models import model_key, predictions_key
from city_assets.tables import table_assets
from city_assets.traffic.ingest import ingest
from city_assets.traffic.models import TRIP_CONGESTION
from city_assets.traffic.trip_tables import TRIP_TABLES
from city_assets.training import training_shortage
from resources.lake import LakeResource
from sensors_and_schedules import retrain as sensor
from tests.city_assets.test_models import materialize
from tests.lakes import house

ZONE = "America/New_York"
NOW = datetime.now(UTC)
BUILT = ("silver/trips", "gold/trip_cells_quarterly", "features/trip_features")


def tonight(config: Settings) -> dg.SkipReason | list[dg.RunRequest]:
    resources = {"lake": LakeResource(path=str(config.lake))}
    context = dg.build_schedule_context(resources=resources, scheduled_execution_time=NOW)
    requested: dg.SkipReason | list[dg.RunRequest] = sensor.retrain_nightly(context)
    return requested


@pytest.fixture
def only_trips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensor, "declared", lambda: {TRIP_CONGESTION.name: TRIP_CONGESTION})
    monkeypatch.setattr("city.models.fitting.search", lambda model, *of: dict(model.defaults))


@pytest.mark.usefixtures("only_trips", "unmeasured")
def test_a_month_of_trips_trains_the_model_once_and_predicts(config: Settings, data: Path, tmp_path: Path) -> None:
    """The month is made of real trips, each moved to another day of the month."""
    trips = pl.read_parquet(data / "tlc" / "trips_with_coordinates.parquet")
    file = write_month(tmp_path / "yellow_tripdata_2015-01.parquet", datetime(2015, 1, 1), 300_000, trips, seed=0)
    loaded = ingest(file, config.lake, ZONE, lambda rows: None)
    assert (loaded.first, loaded.last) == (date(2015, 1, 1), date(2015, 1, 31))
    lake = house(config)
    days = [date(2015, 1, day) for day in range(1, 32)]
    for name in BUILT:
        lake.build(table_of(name), days)
    registry = Registry(config)
    wanted = sensor.models_to_train(registry, Snapshot(config.lake), NOW)
    assert wanted == [(TRIP_CONGESTION, "first training")]

    assert materialize(model_key(TRIP_CONGESTION)).success
    champion = registry.at(TRIP_CONGESTION.name)
    assert champion is not None
    assert champion.metrics["model_log_loss"] < champion.metrics["naive_log_loss"]
    assert tonight(config).__class__ is dg.SkipReason, "nothing is new since the last training"
    lake.build(table_of(BUILT[-1]), days[-1:])
    (request,) = tonight(config)  # type: ignore[misc]
    assert request.asset_selection == [model_key(TRIP_CONGESTION)]

    assert materialize(predictions_key(TRIP_CONGESTION), partition="2015-01-30").success
    predicted = pl.read_delta(str(config.lake / "predictions" / TRIP_CONGESTION.name))
    assert set(predicted["day"]) == {date(2015, 1, 30)}
    assert predicted.filter(pl.col("outcome").is_not_null()).height > 100


@pytest.mark.usefixtures("only_trips")
def test_a_city_without_trips_does_nothing_about_them(config: Settings) -> None:
    shortage = training_shortage(TRIP_CONGESTION, Snapshot(config.lake))
    assert shortage is not None
    assert "trip_features has not been built yet" in shortage
    assert sensor.models_to_train(Registry(config), Snapshot(config.lake), NOW) == []
    assert isinstance(tonight(config), dg.SkipReason)
    assert "trip_features" not in FeatureFreshness(config)._views
    plan = HistoryPlan(datetime(2026, 5, 4, tzinfo=UTC), 3, ZONE)
    steps = " ".join(step.name for step in history.steps(config, plan))
    assert "traffic_congestion" in steps
    assert "trip_" not in steps
    names = {asset.key.path[-1] for asset in table_assets(domain_of("traffic"))} & {t.name for t in TRIP_TABLES}
    assert "trip_features" in names
    names |= {TRIP_CONGESTION.name, "trip_features_drift"}
    for spec in build().resolve_all_asset_specs():
        if spec.key.path[-1] in names:
            assert (spec.automation_condition, spec.freshness_policy) == (None, None), spec.key


def test_the_label_is_of_enough_trips_a_quarter_of_an_hour_later() -> None:
    label = TRIP_CONGESTION.label
    assert isinstance(label, FutureValue)
    at = [datetime(2015, 1, 1, 12, minute, tzinfo=UTC) for minute in (0, 15, 30, 45)]
    rows = pl.DataFrame({"cell": ["c"] * 4, "as_of": at, "level_speed": [30.0, 11.9, None, 12.0]})
    labelled = label.label_rows(TRIP_CONGESTION.view, rows, pl.DataFrame())
    assert labelled.select("as_of", "_label", "_naive").rows() == [(at[0], "high", "low"), (at[2], "medium", None)]
