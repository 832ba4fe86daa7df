"""city models, on a registry with two versions."""

from dataclasses import replace

import pytest

from city.models.registry import Registry
from city.models.train import train
from city.settings import Settings
from city_assets.traffic.models import CONGESTION
from tests.city.models.rows import END, traffic
from tests.commands import city, fails


@pytest.fixture
def registry(config: Settings) -> Registry:
    store = Registry(config)
    quick = replace(CONGESTION, space=None, defaults=CONGESTION.defaults | {"max_iter": 30})
    for _ in range(2):
        train(quick, traffic(), store, data_version=1, now=END)
    return store


def test_a_person_looks_promotes_and_goes_back(registry: Registry) -> None:
    listed = city("models", "list")
    assert "champion" in listed
    assert "challenger" in listed
    assert "none yet" in listed  # the other models
    assert "How congested a cell will be" in city("models", "card", "traffic_congestion")
    assert city("models", "promote", "traffic_congestion").strip() == "traffic_congestion version 2 is the champion"
    assert "no challenger" in fails("models", "promote", "traffic_congestion")
    assert "version 1 is the champion again" in city("models", "rollback", "traffic_congestion")
    champion = registry.at("traffic_congestion")
    assert champion is not None
    assert champion.number == 1


def test_what_cannot_be_done_is_said(config: Settings) -> None:
    assert "no model 'moon'; known: air_quality_60, machine_anomaly" in fails("models", "train", "moon")
    assert "has not been built yet" in fails("models", "train", "traffic_congestion")
    assert "has no champion yet" in fails("models", "card", "traffic_congestion")
    assert "no champion before this one" in fails("models", "rollback", "traffic_congestion")
    assert "no model looks at the view 'moon'" in fails("models", "pin", "moon")
    assert "the benchmark 'decode' takes no --data" in fails("bench", "decode", "--data", "/tmp")
    assert "the benchmark 'anomaly' takes no --subset" in fails("bench", "anomaly", "--subset", "FD002")
