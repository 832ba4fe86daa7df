"""The forecast of a machine: remaining life, interval and action, by the model that serves."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
import requests

from city.features.online import online_store, push
from city.models.registry import Registry
from city.settings import Settings
from city_assets.equipment.limits import LIMIT_COLUMNS, LifeLimits, limits_of
from city_assets.equipment.models import LIFE
from tests.city.serving.served import anything, registered, serving

LARGE = LifeLimits(cap=3000.0, order_below=2100.0, replace_below=900.0, stop_below=300.0, unit="d", unit_hours=24.0)


@pytest.mark.parametrize("share", [0.0, 0.09, 0.1, 0.29, 0.3, 0.69, 0.7, 5.0])
def test_the_action_is_that_of_the_topic(share: float) -> None:
    row = {"timestamp": [datetime.now(UTC)], "machine_id": ["m"], "output": [[share]], "low": [share], "high": [9.0]}
    limits = {column: getattr(LARGE, name) for column, name in LIMIT_COLUMNS.items()}
    shares = pl.lit(dict.fromkeys(LIFE.inputs, 0.0)).alias("contributions")
    assert LIFE.stream is not None
    message = LIFE.stream.message(pl.DataFrame(row | limits).with_columns(shares)).row(0, named=True)
    assert limits_of(limits).recommended(LARGE.cap * share) == (message["recommended_action"], message["priority"])


def test_a_machine_has_a_forecast_and_an_unknown_one_has_none(config: Settings) -> None:
    registered(Registry(config), LIFE, anything(LIFE))
    columns = LIFE.view.features
    features: dict[str, list[Any]] = {name: [0.5] for name, column in columns.items() if column.kind == "float"}
    features |= {"first_of_minute": [True]}
    features |= {column: [getattr(LARGE, name)] for column, name in LIMIT_COLUMNS.items()}
    row = pl.DataFrame({"machine_id": ["pump_001"], "timestamp": [datetime.now(UTC)], **features})
    push(online_store(config), LIFE.view, row)
    with serving(config) as url:
        response = requests.get(f"{url}/forecast", {"machine_id": "pump_001"}, timeout=20)
        assert response.status_code == 200, response.text
        forecast = response.json()
        assert forecast["machine_id"] == "pump_001"
        assert forecast["predicted_rul_hours"] >= 0
        ends = forecast["confidence_interval"]
        assert forecast["remaining_life"] == pytest.approx(forecast["predicted_rul_hours"] / 24, abs=1e-3)
        assert forecast["life_unit"] == "d"
        least = ends[0] if ends else forecast["predicted_rul_hours"]
        assert (forecast["recommended_action"], forecast["priority"]) == LARGE.recommended(least)
        assert forecast["version"] == 1
        assert forecast["warning"].startswith("not learned from: a life_cap of 3000 h needs 1125 days of history")
        nobody = requests.get(f"{url}/forecast", {"machine_id": "nobody"}, timeout=20)
        assert nobody.status_code == 404
        assert "nothing is known of machine_id=nobody" in nobody.json()["detail"]
        assert requests.get(f"{url}/forecast", timeout=20).status_code == 422
