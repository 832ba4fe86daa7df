"""The whole API, as its OpenAPI document describes it, asked by schemathesis: whatever it is asked, it answers."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from city.models.model import models
from city.models.registry import Registry
from city.settings import Settings
from city.stack.embedded import free_ports
from city.streaming.sinks.questdb import ensure_tables
from city.streaming.topics import ensure_topics
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.city.serving.served import anything, put_features, registered, serving
from tests.live import until

EXAMPLES = 12


@pytest.fixture(scope="module")
def url(stack_parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Every domain's routes, and a champion of every model."""
    shared: Settings = stack_parts[0]
    home = tmp_path_factory.mktemp("home")
    config = shared.model_copy(update={"home": home, "serve_port": free_ports(1)[0]})
    ensure_topics(config.kafka, [VEHICLE_POSITIONS])
    ensure_tables(config.questdb, VEHICLE_POSITIONS)
    registry = Registry(config)
    for model in models().values():
        registered(registry, model, anything(model))
    put_features(config)
    with serving(config) as address:
        until(lambda: len(requests.get(f"{address}/models", timeout=30).json()["models"]) == len(models()))
        yield address


@pytest.mark.integration
def test_nothing_that_is_asked_is_an_error_of_ours(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    statuses: Counter[int] = Counter()
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            response = case.call()
            case.validate_response(response, checks=[not_a_server_error])
            statuses[response.status_code] += 1
            if response.status_code >= 400:
                assert response.headers["content-type"][0] == "application/problem+json", response.content[:300]
                assert b"Traceback" not in response.content
                assert b"/site-packages/" not in response.content

        ask()
    assert len(operations) > 35
    assert statuses[200] > 50
    assert statuses[404] + statuses[422] > 50


@pytest.mark.integration
def test_real_examples_are_answered(url: str) -> None:
    """What the documentation gives as an example works as it stands."""
    document = requests.get(f"{url}/openapi.json", timeout=10).json()
    count = 0
    for path in ("/predict", "/predict/batch"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for name, example in content["examples"].items():
            if " of an entity" in name:
                continue
            response = requests.post(url + path, json=example["value"], timeout=20)
            assert response.status_code == 200, (name, response.text)
            count += 1
    assert count == 2 * len(models())
