"""A model's life in the graph, hands off: first training, decay, retraining, promotion, and who serves then."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest
from deltalake import write_deltalake

from city.alerts.outcome_metrics import of_model
from city.alerts.store import alert_store
from city.alerts.watch import shared
from city.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from city.drift.reference import covers_span
from city.lake.snapshot import Snapshot
from city.models import model as declarations
from city.models.examples import label_rows
from city.models.history import training_rows
from city.models.labels import LABEL
from city.models.model import Model, ModelError
from city.models.predictions import LOSS, decay
from city.models.registry import Registry
from city.settings import Settings, settings
from city.tables.schema import partition_by, schema
from city_assets import keys
from city_assets.champion_predictions import predict_days
from city_assets.definitions import build, defs
from city_assets.models import BETTER, check_better, model_key, predictions_key
from city_assets.monitoring.checks import UNKNOWN
from city_assets.monitoring.drift import STABLE, drifted_features, measure
from city_assets.monitoring.references import load_newest, pin, references
from city_assets.traffic.models import CONGESTION, MODELS
from city_assets.training import train_on
from resources.lake import LakeResource
from resources.mlflow_run import MLflowRunResource
from resources.models import ModelRegistryResource
from sensors_and_schedules import retrain as sensor
from tests.city.models.rows import traffic

SPEED = MODELS[-1]
VIEW = SPEED.view
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CITY_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    return settings()


def put(config: Settings, rows: pl.DataFrame, end: datetime) -> None:
    """Appends rows to the view's table, the last of them at `end`."""
    shift = end - rows["as_of"].max()  # type: ignore[operator]
    moved = rows.with_columns(pl.col("as_of") + shift)
    day = pl.col("as_of").dt.convert_time_zone(config.timezone).dt.date()
    moved = moved.with_columns(window_start=pl.col("as_of") - timedelta(minutes=2), day=day)
    wanted = schema(VIEW.table)
    path = config.lake / VIEW.table.id
    typed = moved.select(pl.col(name).cast(kind) for name, kind in wanted.items())
    write_deltalake(path, typed, mode="append", partition_by=partition_by(VIEW.table))


def reasons(config: Settings, now: datetime) -> dict[str, str]:
    return {m.name: why for m, why in sensor.models_to_train(Registry(config), Snapshot(config.lake), now)}


def materialize(
    *chosen_keys: dg.AssetKey,
    partition: str | None = None,
    definitions: dg.Definitions = defs,
    instance: dg.DagsterInstance | None = None,
    tags: dict[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    chosen = [
        a for a in definitions.assets or () if isinstance(a, dg.AssetsDefinition) and not a.keys.isdisjoint(chosen_keys)
    ]
    resources = {
        "lake": LakeResource(path=str(settings().lake)),
        "models": ModelRegistryResource(),
        "mlflow": MLflowRunResource(),
    }
    kept = instance or dg.DagsterInstance.ephemeral()
    return dg.materialize(chosen, resources=resources, partition_key=partition, instance=kept, tags=tags)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Model:
    """One model, with its defaults: the search is tested elsewhere."""
    quick = replace(SPEED, space=None)
    for where in (declarations, sensor):
        monkeypatch.setattr(
            where, "declared" if where is sensor else "models", lambda declared=None: {quick.name: quick}
        )
    monkeypatch.setattr("city_assets.monitoring.references.models", lambda: {quick.name: quick})
    return quick


def test_a_model_that_decays_is_retrained_promoted_and_serves(config: Settings, quick: Model) -> None:
    """That people are told of it, too, is tested with the channels: tests/test_alarm_faults.py."""
    registry = Registry(config)
    assert reasons(config, NOW) == {}  # nothing built yet
    put(config, traffic(hours=12, seed=1), NOW - timedelta(hours=30))
    assert reasons(config, NOW) == {quick.name: "first training"}

    first = train_on(quick, Snapshot(config.lake), config, registry, print)
    assert first.promoted
    assert reasons(config, NOW + timedelta(minutes=5)) == {}

    # Trained a while ago, as far as anybody can tell; then the world changes: speeds hardly come back any more.
    begin = NOW - timedelta(hours=29)
    backdate(registry, quick.name, begin)
    put(config, traffic(hours=10, seed=2), NOW - timedelta(hours=19))
    put(config, traffic(hours=18, seed=3, back=0.02), NOW)
    days = sorted(training_rows(quick, Snapshot(config.lake)).collect()["day"].unique())
    recorded = predict_days(quick, Snapshot(config.lake), registry, days)
    low, high, actual = (recorded[name].cast(pl.Float64) for name in ("low", "high", "outcome"))
    assert (low < high).all()
    then = recorded["as_of"] < NOW - timedelta(hours=19)  # while it was as it had learned
    assert 0.8 < actual.is_between(low, high).filter(then).mean() < 0.97  # type: ignore[operator]
    worse = decay(quick, recorded, 1, begin)
    assert worse is not None
    assert worse.effect > 0.3
    assert "performance decay" in reasons(config, NOW)[quick.name]

    second = train_on(quick, Snapshot(config.lake), config, registry, print)
    assert second.promoted
    assert "better" in second.reason
    assert second.fitted.scores["model"]["mae"] < second.fitted.scores["champion"]["mae"]
    after = predict_days(quick, Snapshot(config.lake), registry, days)
    assert set(after["version"]) == {2}
    assert after[LOSS].mean() < recorded[LOSS].mean()  # type: ignore[operator]
    assert pl.read_delta(str(config.lake / "predictions" / quick.name)).height == after.height
    assert reasons(config, datetime.now(UTC)) == {}


def backdate(registry: Registry, name: str, to: datetime) -> None:
    from mlflow import MlflowClient

    MlflowClient(registry.uri).set_model_version_tag(name, "1", "trained_at", to.isoformat())


def test_new_labels_and_drift_are_reasons_too(config: Settings, quick: Model) -> None:
    registry = Registry(config)
    put(config, traffic(hours=24, seed=1), NOW - timedelta(hours=25))
    assert measure(VIEW, [quick], config.lake, config, registry, NOW) is None  # a whole day: pinned now
    assert references(config).get(VIEW.name) is not None
    train_on(quick, Snapshot(config.lake), config, registry, print)
    backdate(registry, quick.name, NOW - timedelta(hours=25))
    put(config, traffic(hours=14, seed=2), NOW)
    assert "new labels" in reasons(config, NOW)[quick.name]

    faster = traffic(hours=24, seed=3).with_columns(pl.col("^speed_(mean|lag_.|recent)$") + 12)
    put(config, faster, NOW + timedelta(hours=23))
    result = materialize(dg.AssetKey(["monitoring", f"{VIEW.name}_drift"]))
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == (STABLE, False)
    assert {"speed_mean", "speed_recent", f"{quick.name} prediction"} <= set(
        drifted_features(Snapshot(config.lake), VIEW.name)
    )
    assert "speed_neighbours" not in drifted_features(Snapshot(config.lake), VIEW.name)
    page = (config.home / "drift" / f"{VIEW.name}.html").read_text()
    assert "speed_mean, then and now" in page
    assert len(page) < 200_000
    assert "drift of speed_" in reasons(config, NOW)[quick.name]

    pin(VIEW, [quick], config.lake, config)
    result = materialize(dg.AssetKey(["monitoring", f"{VIEW.name}_drift"]))
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == (STABLE, True)


def test_a_reference_without_the_inputs_of_a_release_is_pinned_anew(config: Settings, quick: Model) -> None:
    put(config, traffic(hours=24, seed=1), NOW - timedelta(hours=25))
    rows = traffic(hours=24, seed=2).drop(quick.inputs[0])
    references(config).update_reference(VIEW.name, rows)
    assert measure(VIEW, [quick], config.lake, config, Registry(config), NOW) is None
    pinned = references(config).get(VIEW.name)
    assert pinned is not None
    assert set(quick.inputs) <= set(pinned.columns)


@pytest.fixture
def since_yesterday(config: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.Definitions]:
    """The definitions of a city that began yesterday."""
    yield from _definitions_since(1, config, monkeypatch)


@pytest.fixture
def since_three_days(config: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.Definitions]:
    """The definitions of a city that began three days ago."""
    yield from _definitions_since(3, config, monkeypatch)


def _definitions_since(days: int, config: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.Definitions]:
    first = datetime.now(ZoneInfo(config.timezone)).date() - timedelta(days=days)
    monkeypatch.setattr(keys, "first_day", lambda *_: first)
    keys.reload_days()
    yield build()
    keys.reload_days()


def test_of_many_rows_a_random_share_is_loaded(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    put(config, traffic(hours=25), NOW)
    whole = load_newest(VIEW, [SPEED], config.lake, config)
    monkeypatch.setattr("city_assets.monitoring.references.MOST_ROWS", whole.height // 10)
    part = load_newest(VIEW, [SPEED], config.lake, config)
    assert whole.height / 20 < part.height < whole.height / 5
    assert covers_span(part, VIEW.time)
    assert abs(part["speed_mean"].mean() - whole["speed_mean"].mean()) < 2  # type: ignore[operator]


def test_assets_of_a_model_train_and_predict(
    config: Settings, since_yesterday: dg.Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city.models.fitting.search", lambda model, *of: dict(model.defaults))  # is tested elsewhere
    key, said = model_key(CONGESTION), predictions_key(CONGESTION)
    zone = ZoneInfo(config.timezone)
    yesterday = datetime.now(zone).date() - timedelta(days=1)
    put(config, traffic(hours=12), datetime.combine(yesterday, time(18), zone).astimezone(UTC))
    day = str(yesterday)
    (empty,) = materialize(said, partition=day, definitions=since_yesterday).asset_materializations_for_node(
        said.to_python_identifier()
    )
    assert empty.metadata["champion"].value == "none yet"
    result = materialize(key)
    (check,) = result.get_asset_check_evaluations()
    assert check.check_name == BETTER
    (made,) = result.asset_materializations_for_node(key.to_python_identifier())
    assert made.metadata["version"].value == 1
    assert Registry(config).version(CONGESTION.name, 1).tags["dagster_run_id"] == result.run_id
    assert "# traffic_congestion" in str(made.metadata["card"].value)
    assert materialize(said, partition=day, definitions=since_yesterday).success
    rows = pl.read_delta(str(config.lake / "predictions" / CONGESTION.name))
    assert set(rows["prediction"]) <= set(CONGESTION.label.classes)
    truth = label_rows(CONGESTION, training_rows(CONGESTION, Snapshot(config.lake)).collect())
    both = rows.join(truth.select("cell", "as_of", LABEL), on=["cell", "as_of"])
    assert both.height
    assert (both["outcome"] == both[LABEL]).all()
    assert (rows["for"] - rows["as_of"]).unique().to_list() == [timedelta(minutes=15)]
    assert rows.filter(pl.col("outcome").is_null())["loss"].null_count() == rows["outcome"].null_count() > 0
    assert rows["confidence"].is_between(1 / 3, 1).all()


def test_only_the_newest_outcomes_are_live_metrics(
    config: Settings, since_three_days: dg.Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day that has just begun has rows and no outcome yet. A backfill of an old day has only older outcomes."""
    monkeypatch.setattr("city.models.fitting.search", lambda model, *of: dict(model.defaults))  # is tested elsewhere
    zone = ZoneInfo(config.timezone)
    old, last, new = (datetime.now(zone).date() - timedelta(days=n) for n in (3, 2, 1))

    def at(day: date, hour: int, minute: int = 0) -> datetime:
        return datetime.combine(day, time(hour, minute), zone).astimezone(UTC)

    def predict(first: date, last: date | None = None) -> dict[str, float]:
        """Predicts a day, or in one run the days up to the last, and returns the live metrics then."""
        days = {ASSET_PARTITION_RANGE_START_TAG: str(first), ASSET_PARTITION_RANGE_END_TAG: str(last)} if last else None
        partition = None if last else str(first)
        assert materialize(predictions_key(SPEED), partition=partition, definitions=since_three_days, tags=days).success
        return of_model(shared(alert_store(config)), SPEED.name, 1)

    put(config, traffic(hours=12, seed=1), at(old, 12))
    train_on(SPEED, Snapshot(config.lake), config, Registry(config), print)
    backdate(Registry(config), SPEED.name, at(old, 12))
    put(config, traffic(hours=18, seed=2), at(last, 9))
    morning = predict(last)
    assert morning["outcomes"] > 0
    assert predict(new) == morning, "the new day has no rows yet"
    assert predict(old) == morning, "a backfill of an old day"
    assert predict(old, last) == morning, "a backfill that includes the newest day"

    put(config, traffic(hours=2, seed=3), at(new, 0, 10))
    assert predict(new) == morning, "the new day has rows, but no outcome yet"
    evening = predict(last)
    assert evening["outcomes"] > morning["outcomes"], "outcomes of an evening that are known after midnight"
    put(config, traffic(hours=1, seed=4), at(new, 1, 10))
    night = predict(new)
    assert 0 < night["outcomes"] < evening["outcomes"]
    assert predict(last) == night, "a backfill of the day before"


def test_what_is_not_there_yet_is_named(config: Settings) -> None:
    with pytest.raises(ModelError, match="features/traffic_features has not been built yet"):
        train_on(SPEED, Snapshot(config.lake), config, Registry(config))
    with pytest.raises(ModelError, match="has no champion yet"):
        predict_days(SPEED, Snapshot(config.lake), Registry(config), [NOW.date()])


def test_the_sensor_gives_the_reason_and_does_not_insist(config: Settings, quick: Model) -> None:
    instance = dg.DagsterInstance.ephemeral()
    resources = {"lake": LakeResource(path=str(config.lake)), "models": ModelRegistryResource()}

    def tick() -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            instance=instance, resources=resources, repository_def=defs.get_repository_def()
        )
        result = sensor.retrain(context)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    assert isinstance(tick(), dg.SkipReason)
    put(config, traffic(hours=2, cells=40, seed=1), NOW)
    assert isinstance(tick(), dg.SkipReason)  # rows enough, but of too short a time to hold some out
    put(config, traffic(hours=10, seed=1), NOW - timedelta(hours=2))
    answer = tick()
    assert isinstance(answer, dg.SensorResult)
    (request,) = answer.run_requests or []
    assert request.asset_selection == [model_key(quick)]
    assert request.tags[sensor.REASON] == "first training"
    instance.create_run_for_job(sensor_job(), tags=dict(request.tags), status=dg.DagsterRunStatus.FAILURE)
    assert isinstance(tick(), dg.SkipReason)


def sensor_job() -> dg.JobDefinition:
    return defs.get_repository_def().get_job("train_models")


@pytest.mark.parametrize(
    ("model", "young", "passed", "unknown"),
    [(0.4, True, True, False), (0.4, False, True, False), (0.6, True, True, True), (0.6, False, False, False)],
)
def test_a_young_model_that_is_not_better_yet_raises_no_alarm(
    model: float, young: bool, passed: bool, unknown: bool
) -> None:
    check = check_better(CONGESTION, {"model": {"log_loss": model}, "naive": {"log_loss": 0.5}}, young)
    assert (check.passed, UNKNOWN in check.metadata) == (passed, unknown)
