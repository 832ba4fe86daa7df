"""A model is trained by itself only once every part of its rows has enough of the rarer outcomes to tell."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from deltalake import write_deltalake

from city.lake.snapshot import Snapshot
from city.models.boosting import boosted_trees
from city.models.fitting import fit
from city.models.model import Model, ModelError
from city.models.registry import Registry
from city.settings import Settings
from city.tables.model import DAY
from city.tables.schema import partition_by, schema
from city_assets.models import model_key
from city_assets.payments.contract import CHARGEBACKS
from city_assets.payments.models import FRAUDS
from city_assets.traffic.models import MODELS
from city_assets.training import training_shortage
from resources.lake import LakeResource
from resources.models import ModelRegistryResource
from sensors_and_schedules import retrain as sensor
from tests.city.stack.histories import write_progress, write_supervisor

SPEED = MODELS[-1]
NOW = datetime.now(UTC).replace(microsecond=0)
ROWS, SECONDS = 4_600, 4  # a bit more than five hours: what a payment was is known after half an hour
EVERYWHERE = lambda share: True  # noqa: E731
NOT_IN_THE_MIDDLE = lambda share: not 0.55 < share < 0.8  # noqa: E731


def payments(is_fraud_time: Callable[[float], bool], cards: int = 40) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of the feature view, and chargebacks: of each tenth payment at the shares of the time that are given."""
    chance = np.random.default_rng(0)
    frauds = {n for n in range(0, ROWS, 10) if is_fraud_time(n / ROWS)}
    rows = pl.DataFrame(
        {
            "timestamp": [NOW - timedelta(seconds=SECONDS * (ROWS - n)) for n in range(ROWS)],
            "payment_id": [f"pay_{n:016x}" for n in range(ROWS)],
            "card": [f"card_{n // 40 % cards:05d}" for n in range(ROWS)],
            "amount": [chance.uniform(1, 50) + 200 * (n in frauds) for n in range(ROWS)],
        }
    )
    kinds = schema(FRAUDS.view.table)
    day = pl.col("timestamp").dt.date().alias(DAY)
    rows = rows.with_columns(day, *(pl.lit(None).alias(name) for name in kinds.keys() - {*rows.columns, DAY}))
    rows = rows.select(pl.col(name).cast(kind) for name, kind in kinds.items())
    reported = rows.filter(pl.col("payment_id").is_in([f"pay_{n:016x}" for n in frauds]))
    return rows, reported.select("timestamp", "payment_id", "card")


def put(config: Settings, rows: pl.DataFrame, reports: pl.DataFrame) -> None:
    path = config.lake / FRAUDS.view.table.id
    write_deltalake(path, rows, mode="overwrite", partition_by=partition_by(FRAUDS.view.table))
    write_deltalake(config.lake / "silver" / CHARGEBACKS.name, reports, mode="overwrite")


@pytest.fixture
def frauds(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(sensor, "declared", lambda: {SPEED.name: SPEED, FRAUDS.name: FRAUDS})
    return FRAUDS


def wanted(config: Settings) -> list[tuple[str, str]]:
    return [(model.name, why) for model, why in sensor.models_to_train(Registry(config), Snapshot(config.lake), NOW)]


def tonight(config: Settings) -> Any:
    return sensor.retrain_nightly(
        dg.build_schedule_context(resources={"lake": LakeResource(path=str(config.lake))}, scheduled_execution_time=NOW)
    )


@pytest.mark.parametrize(
    ("when", "cards", "shortage"),
    [
        (NOT_IN_THE_MIDDLE, 40, "for validation, 0 of"),
        (lambda share: share < 0.77, 40, "for held out, "),
        (lambda share: share > 0.7, 40, "for train, 0 of"),
        (EVERYWHERE, 2, r"they are of 2 groups \(card\); it needs 5"),
    ],
)
def test_a_model_waits_until_each_part_has_enough_frauds(
    config: Settings, frauds: Model, when: Callable[[float], bool], cards: int, shortage: str
) -> None:
    put(config, *payments(when, cards))
    with pytest.raises(ModelError, match=shortage):
        raise ModelError(training_shortage(frauds, Snapshot(config.lake)) or "none")
    assert wanted(config) == []
    skipped = tonight(config)
    assert isinstance(skipped, dg.SkipReason)
    for name in (SPEED.name, frauds.name):
        assert f"model '{name}'" in str(skipped.skip_message)


def test_a_model_is_trained_first_and_every_night_once_each_part_has_enough(config: Settings, frauds: Model) -> None:
    assert isinstance(tonight(config), dg.SkipReason), "nothing is built yet"
    put(config, *payments(EVERYWHERE))
    assert wanted(config) == [(frauds.name, "first training")]
    (request,) = tonight(config)
    assert request.asset_selection == [model_key(frauds)], "not those that cannot be trained"
    assert request.tags[sensor.REASON] == "every night"
    assert (request.tags[sensor.MODEL], request.run_key) == (frauds.name, f"{frauds.name} {NOW:%Y-%m-%d}")


def test_no_model_is_trained_while_the_history_is_made_also_between_two_tries(config: Settings) -> None:
    def skipped() -> str:
        resources = {"lake": LakeResource(path=str(config.lake)), "models": ModelRegistryResource()}
        with dg.DagsterInstance.ephemeral() as instance:
            result = sensor.retrain(dg.build_sensor_context(instance, resources=resources))
        assert isinstance(result, dg.SkipReason)
        return str(result.skip_message)

    write_progress(config, 62).fail(OSError("disk full"))
    assert skipped() == "no model has a reason"
    write_supervisor(config, "history")
    assert skipped().startswith("the history is being made")


def test_a_young_view_is_not_read(config: Settings, frauds: Model) -> None:
    rows, reports = payments(EVERYWHERE)
    put(config, rows.tail(3_900), reports)
    assert "it needs 4:30:00" in str(training_shortage(frauds, Snapshot(config.lake)))


def test_nothing_is_searched_where_the_validation_part_has_one_outcome() -> None:
    def space(trial: Any) -> dict[str, Any]:
        raise AssertionError("a search rewards what never says that a payment is a fraud")

    model = replace(
        FRAUDS,
        estimator=boosted_trees("classification"),
        groups=(),
        threshold=None,
        inputs=("amount", "is_online"),
        space=space,
        defaults={"max_iter": 2},
    )
    rows, reports = payments(NOT_IN_THE_MIDDLE)
    fitted = fit(model, rows, champion=None, now=NOW, truth=reports)
    assert fitted.parameters == model.defaults
    late = payments(lambda share: share > 0.7)
    with pytest.raises(ModelError, match="for train, 0 of"):
        fit(model, late[0], champion=None, now=NOW, truth=late[1])
