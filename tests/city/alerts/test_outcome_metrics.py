"""The metrics of champions that rules and the server see: those by the newest outcomes only."""

from datetime import UTC, datetime, timedelta

import pytest

from city.alerts.outcome_metrics import name_metrics, of_model
from city.alerts.store import AlertStore, alert_store
from city.alerts.watch import shared
from city.settings import Settings

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def store(config: Settings) -> AlertStore:
    store = alert_store(config)
    store.outcome_metrics.share("speed", 1, {"mae": 4.0, "outcomes": 9.0}, NOON)
    return store


def metrics(store: AlertStore, version: int = 1) -> dict[str, float]:
    return of_model(shared(store), "speed", version)


def test_metrics_of_newer_outcomes_replace_the_shared_ones(store: AlertStore) -> None:
    assert metrics(store) == {"mae": 4.0, "outcomes": 9.0}
    store.outcome_metrics.share("speed", 1, {"mae": 3.0}, NOON + HOUR)
    assert metrics(store) == {"mae": 3.0}
    store.outcome_metrics.share("speed", 1, {"mae": 2.0}, NOON + HOUR)
    assert metrics(store) == {"mae": 2.0}, "a repeated run may have more outcomes before the newest one"


def test_metrics_of_older_outcomes_are_not_shared(store: AlertStore) -> None:
    store.outcome_metrics.share("speed", 1, {"mae": 3.0}, NOON - HOUR)
    assert metrics(store) == {"mae": 4.0, "outcomes": 9.0}


def test_a_day_without_outcomes_leaves_the_shared_metrics(store: AlertStore) -> None:
    store.outcome_metrics.share("speed", 1, {}, None)
    assert metrics(store) == {"mae": 4.0, "outcomes": 9.0}


def test_a_new_version_has_no_metrics_before_it_has_newer_outcomes(store: AlertStore) -> None:
    store.outcome_metrics.share("life", 1, {"mae": 1.0}, NOON)
    store.outcome_metrics.share("speed", 2, {}, None)
    assert shared(store) == {"model.version.speed": 2.0} | name_metrics("life", 1, {"mae": 1.0})
    store.outcome_metrics.share("speed", 2, {"mae": 9.0}, NOON - HOUR)
    assert metrics(store, 2) == {}, "of a day before that of the version before it"
    store.outcome_metrics.share("speed", 2, {"mae": 3.0}, NOON + HOUR)
    assert metrics(store, 2) == {"mae": 3.0}


def test_the_first_version_without_outcomes_is_shared_without_metrics(config: Settings) -> None:
    store = alert_store(config)
    store.outcome_metrics.share("speed", 1, {}, None)
    assert shared(store) == {"model.version.speed": 1.0}
    store.outcome_metrics.share("speed", 1, {"mae": 3.0}, NOON - HOUR)
    assert metrics(store) == {"mae": 3.0}


def test_the_metrics_of_a_version_are_not_taken_for_those_of_another() -> None:
    metrics = name_metrics("traffic_speed_15", 3, {"mae": 4.0}) | name_metrics(
        "traffic_speed_5", 9, {"mae": 1.0, "coverage": 0.9}
    )
    assert metrics["model.mae.traffic_speed_15"] == 4.0
    assert of_model(metrics, "traffic_speed_15", 3) == {"mae": 4.0}
    assert of_model(metrics, "traffic_speed_5", 9) == {"mae": 1.0, "coverage": 0.9}
    assert of_model(metrics, "traffic_speed_15", 4) == {}
