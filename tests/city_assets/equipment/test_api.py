"""The forecast of a machine: remaining life, interval and action, by the model that serves."""

from datetime import UTC, datetime

import polars as pl
import pytest
import requests

from city.features.online import online_store, push
from city.models.registry import Registry
from city.settings import Settings
from city_assets.equipment.models import ACTIONS, LIFE, life_message, recommended
from tests.city.serving.served import anything, registered, serving


@pytest.mark.parametrize("hours", [0.0, 0.09, 0.1, 0.29, 0.3, 0.69, 0.7, 5.0])
def test_the_action_is_that_of_the_topic(hours: float) -> None:
    row = {"timestamp": [datetime.now(UTC)], "machine_id": ["m"], "output": [[hours]], "low": [hours], "high": [9.0]}
    names = list(LIFE.inputs)
    shares = pl.DataFrame({name: [0.0] for name in names}).select(contributions=pl.struct(names))
    message = life_message(pl.DataFrame(row).with_columns(shares["contributions"])).row(0, named=True)
    assert recommended(hours) == (message["recommended_action"], message["priority"])


def test_a_machine_has_a_forecast_and_an_unknown_one_has_none(config: Settings) -> None:
    registered(Registry(config), LIFE, anything(LIFE))
    features = {name: [0.5] for name in LIFE.view.features if name != "first_of_minute"} | {"first_of_minute": [True]}
    row = pl.DataFrame({"machine_id": ["pump_001"], "timestamp": [datetime.now(UTC)], **features})
    push(online_store(config), LIFE.view, row)
    with serving(config) as url:
        told = requests.get(f"{url}/forecast", {"machine_id": "pump_001"}, timeout=20)
        assert told.status_code == 200, told.text
        found = told.json()
        assert found["machine_id"] == "pump_001"
        assert found["predicted_rul_hours"] >= 0
        assert found["recommended_action"] in {"none", *(action for _, action, _ in ACTIONS)}
        assert found["version"] == 1
        nobody = requests.get(f"{url}/forecast", {"machine_id": "nobody"}, timeout=20)
        assert nobody.status_code == 404
        assert "nothing is known of machine_id=nobody" in nobody.json()["detail"]
        assert requests.get(f"{url}/forecast", timeout=20).status_code == 422
