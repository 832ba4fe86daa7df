"""Objects within an event: columns of the same table, checked as strictly, on both ways of reading."""

import json
from typing import Any

import jsonschema
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.contracts import Contract, Field
from city.contracts.compatibility import breaks
from city.contracts.json_schema import json_schema
from city.contracts.model import ContractError
from city.contracts.schema import bronze_schema
from city.streaming.decode import decode
from city.streaming.strict_json import inspect
from tests.events import NOW, iso, raw

READINGS = Contract(
    name="machine_readings",
    topic="machine_readings",
    version=1,
    description="What a machine's sensors say.",
    key="machine_id",
    event_time="timestamp",
    fields=(
        Field(name="timestamp", kind="timestamp", description="when"),
        Field(name="machine_id", kind="string", description="which"),
        Field(name="temperature", kind="float", description="how hot", unit="°C", maximum=500, within="readings"),
        Field(name="vibration", kind="float", description="how shaky", within="readings"),
        Field(name="shift", kind="string", description="who worked", nullable=True, within="metadata"),
    ),
)
EVENT = {
    "timestamp": iso(NOW),
    "machine_id": "pump_1",
    "readings": {"temperature": 61.5, "vibration": 2},
    "metadata": {"shift": "night"},
}


def decoded(*events: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    messages = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    return decode(READINGS, raw(messages), {})


def reasons(event: Any) -> list[str]:
    """Why an event is rejected, alone and among others."""
    _, alone = decoded(event)
    rows, rejects = decoded(EVENT, event, EVENT)
    assert rejects["reasons"].to_list() == alone["reasons"].to_list()
    assert rows.height + rejects.height == 3
    return [] if alone.is_empty() else alone["reasons"][0].to_list()


def test_an_object_within_an_event_becomes_columns() -> None:
    rows, rejects = decoded(EVENT, EVENT)
    assert rejects.is_empty()
    assert dict(rows.schema) == bronze_schema(READINGS)
    assert rows.row(0, named=True)["temperature"] == 61.5
    assert rows["vibration"].to_list() == [2.0, 2.0]
    assert rows["shift"].to_list() == ["night", "night"]


@pytest.mark.parametrize("change", [{"metadata": {}}, {"metadata": None}, {"metadata": {"shift": None}}])
def test_what_may_be_missing_may_be_missing(change: dict[str, Any]) -> None:
    assert reasons(EVENT | change) == []
    without = {name: value for name, value in EVENT.items() if name != "metadata"}
    rows, _ = decoded(EVENT, without, EVENT | change)
    assert rows["shift"].to_list() == ["night", None, None]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"readings": {"temperature": 1.0}}, "vibration: missing or null"),
        ({"readings": None}, "temperature: missing or null"),
        ({"readings": [1]}, "readings: an array, not an object"),
        ({"readings": "hot"}, "readings: a string, not an object"),
        ({"readings": {"temperature": "hot", "vibration": 1}}, 'temperature: a string ("hot"), not a float'),
        ({"readings": {"temperature": 900, "vibration": 1}}, "temperature: outside at most 500 °C"),
        ({"readings": {"temperature": 1, "vibration": 1, "moon": 1}}, "readings.moon: not a field of"),
        ({"temperature": 5}, "temperature: not a field of machine_readings v1"),
        ({"metadata": {"shift": "night", "debug": True}}, "metadata.debug: not a field of"),
        ({"metadata": {"debug": True}}, "metadata.debug: not a field of"),
        ({"metadata": {"metadata": {}}}, "metadata.metadata: not a field of"),
    ],
)
def test_what_the_contract_forbids_within_an_object_is_named(change: dict[str, Any], reason: str) -> None:
    texts = reasons(EVENT | change)
    assert any(said.startswith(reason) for said in texts), texts


def test_a_key_that_stands_twice_within_an_object_is_rejected() -> None:
    message = json.dumps(EVENT).encode().replace(b'"vibration": 2', b'"vibration": 2, "vibration": 2')
    assert reasons(message) == ["readings.vibration: stands 2 times"]


_VALUE = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-9, 9), st.text('ab"\\', max_size=3))
_OBJECT = st.dictionaries(st.sampled_from(["temperature", "vibration", "shift", "moon"]), _VALUE, max_size=4)
_EVENTS = st.fixed_dictionaries(
    {"timestamp": st.just(iso(NOW)), "machine_id": st.just("pump_1")},
    optional={
        "readings": st.one_of(_OBJECT, _VALUE, st.just(EVENT["readings"])),
        "metadata": st.one_of(_OBJECT, st.just(EVENT["metadata"])),
        "temperature": _VALUE,
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_EVENTS, min_size=1, max_size=6))
def test_both_ways_of_reading_and_the_published_schema_agree(events: list[dict[str, Any]]) -> None:
    rows, rejects = decoded(*events)
    assert sorted([*rows["_offset"], *rejects["offset"]]) == list(range(len(events)))
    schema = jsonschema.Draft202012Validator(json_schema(READINGS))
    for offset, event in enumerate(events):
        accepted = offset in rows["_offset"].to_list()
        slowly, said = inspect(READINGS, json.dumps(event).encode())
        if accepted:
            assert slowly is not None, said
        if schema.is_valid(event):
            assert accepted
    for row in rows.iter_rows(named=True):
        sent = events[row["_offset"]]
        assert row["temperature"] == sent["readings"]["temperature"]
        assert row["shift"] == (sent.get("metadata") or {}).get("shift")


def test_the_published_schema_nests_and_its_changes_are_seen() -> None:
    schema = json_schema(READINGS)
    assert schema["required"] == ["timestamp", "machine_id", "readings"]
    assert schema["properties"]["readings"]["required"] == ["temperature", "vibration"]
    from dataclasses import replace

    narrower = tuple(replace(f, maximum=100) if f.name == "temperature" else f for f in READINGS.fields)
    (conflict,) = breaks(schema, json_schema(replace(READINGS, fields=narrower)), 1, replace(READINGS, version=2))
    assert "field 'readings': field 'temperature': may be above 100" in str(conflict)


def test_an_object_and_a_field_do_not_share_a_name() -> None:
    twice = Field(name="readings", kind="float", description="?")
    with pytest.raises(ContractError, match="the object 'readings' has the name of a field"):
        Contract(**{**vars(READINGS), "fields": (*READINGS.fields, twice)})
    with pytest.raises(ContractError, match="lower-case letters"):
        Field(name="x", kind="float", description="?", within="Not This")
