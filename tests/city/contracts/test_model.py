from datetime import timedelta
from typing import Any

import pytest

from city.contracts import Contract, ContractError, Distinct, Field, Quantity, Window
from city.contracts.registry import contract_of, domain_of, domains
from city_assets.environment.contract import SENSORS

_ID = Field(name="id", kind="string", description="who")
_AT = Field(name="at", kind="timestamp", description="when")


def contract(**changes: Any) -> Contract:
    base: dict[str, Any] = {"name": "things", "topic": "things", "version": 1, "description": "Things."}
    return Contract(**(base | {"key": "id", "event_time": "at", "fields": (_ID, _AT)} | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": "who"}, "key 'who' is not among its fields ['id', 'at']"),
        ({"event_time": "id"}, "event_time 'id' must be a timestamp"),
        ({"key": "at"}, "key 'at' must be a string"),
        ({"topic": "a b"}, "topic 'a b' is not a name that Kafka takes"),
        ({"name": "Things"}, "a name is lower-case"),
        ({"fields": (_ID, _AT, _AT)}, "a field stands twice"),
        (
            {"windows": (Window(name="w", every=timedelta(1), by="place", aggregates=(), description="w"),)},
            "window 'w' uses 'place'",
        ),
        (
            {
                "windows": (
                    Window(
                        name="w",
                        every=timedelta(1),
                        by="id",
                        aggregates=(Distinct("a", "id"), Distinct("b", "id")),
                        description="w",
                    ),
                )
            },
            "one Distinct a window",
        ),
    ],
)
def test_a_contract_that_cannot_hold_says_what_to_mend(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError) as error:
        contract(**changes)
    assert said in str(error.value)
    assert "contract" in str(error.value)


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (
            lambda: Field(name="x", kind="float", description="x", minimum=2, maximum=1),
            "minimum 2 is above its maximum 1",
        ),
        (lambda: Field(name="x", kind="string", description="x", minimum=2), "only numbers have a range"),
        (lambda: Field(name="x", kind="float", description="x", choices=("a",)), "only strings have choices"),
        (lambda: Field(name="X y", kind="float", description="x"), "a name is lower-case"),
        (lambda: Quantity(name="q", unit="m", minimum=5, maximum=1, description="q"), "no value can be valid"),
    ],
)
def test_a_field_that_cannot_hold_says_what_to_mend(declare: Any, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        declare()


def test_domains_are_found_and_not_listed() -> None:
    assert {"environment", "traffic"} <= {domain.name for domain in domains()}


def test_a_contract_is_found_by_its_name_and_by_its_topic() -> None:
    assert contract_of("sensors") is contract_of("city.sensors") is SENSORS


def test_what_is_unknown_is_answered_with_what_is_known() -> None:
    with pytest.raises(ContractError, match="no domain 'moon'; known: environment, .*traffic"):
        domain_of("moon")
    with pytest.raises(ContractError, match="no contract 'moon'; known: .*sensors"):
        contract_of("moon")


def test_the_mqtt_filter_has_a_wildcard_for_each_level_that_varies() -> None:
    assert SENSORS.mqtt_filter == "city/sensors/+/+"
    assert contract().mqtt_filter is None
