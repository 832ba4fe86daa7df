import json
from datetime import timedelta

import polars as pl
import pytest

from city.contracts import questdb
from city.contracts.json_schema import json_schema
from city.contracts.publish import files, write
from city.contracts.registry import contracts
from city.contracts.schema import bronze_schema, wire_schema
from city.contracts.validity import span, words
from city.settings import CHECKOUT, settings
from city.sources.registry import names_by_contract, sources
from city_assets.environment.contract import SENSORS
from city_assets.traffic.contract import VEHICLE_POSITIONS

FILES = files(names_by_contract(sources(settings())))


def test_times_are_strings_on_the_wire_and_typed_in_bronze() -> None:
    assert wire_schema(VEHICLE_POSITIONS)["timestamp"] == pl.String
    assert bronze_schema(VEHICLE_POSITIONS)["timestamp"] == pl.Datetime("us", "UTC")
    assert list(bronze_schema(VEHICLE_POSITIONS))[-4:] == ["_partition", "_offset", "_arrived", "_watermark"]


def test_the_questdb_table_deduplicates_by_time_and_key_and_forgets() -> None:
    statement = questdb.create_events(VEHICLE_POSITIONS)
    assert "vehicle_id SYMBOL, timestamp TIMESTAMP, latitude DOUBLE" in statement
    assert "trip_id VARCHAR, cell SYMBOL, part INT, off LONG" in statement
    assert "TTL 48 HOURS WAL DEDUP UPSERT KEYS(timestamp, vehicle_id)" in statement
    window = questdb.create_window(VEHICLE_POSITIONS, VEHICLE_POSITIONS.windows[0])
    assert "vehicle_count LONG, positions LONG, speeds LONG, speed_mean DOUBLE, speed_std DOUBLE" in window
    assert "DEDUP UPSERT KEYS(window_start, cell)" in window


def test_the_json_schema_states_units_ranges_and_what_depends_on_the_type() -> None:
    schema = json_schema(SENSORS)
    assert schema["additionalProperties"] is False
    noise = next(c for c in schema["allOf"] if c["if"]["properties"]["type"]["const"] == "noise")
    assert noise["then"]["properties"] == {"unit": {"const": "dB"}, "value": {"minimum": 30, "maximum": 140}}
    latitude = json_schema(VEHICLE_POSITIONS)["properties"]["latitude"]
    assert latitude == {"type": "number", "description": "WGS 84 latitude [°]", "minimum": -90, "maximum": 90}
    assert json_schema(VEHICLE_POSITIONS)["properties"]["trip_id"]["type"] == ["string", "null"]
    assert "trip_id" not in json_schema(VEHICLE_POSITIONS)["required"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_generated_docs_are_up_to_date(name: str) -> None:
    assert (CHECKOUT / "docs" / name).read_text() == FILES[name], "run `city docs`"


def test_the_docs_are_written_where_they_are_asked_for(tmp_path: CHECKOUT) -> None:  # type: ignore[valid-type]
    written = write(tmp_path)
    page = (tmp_path / "contracts.md").read_text()
    assert "| latitude | float | ° | -90 to 90 | no | WGS 84 latitude |" in page
    assert "MQTT topic `city/sensors/<location>/<type>`" in page
    schemas = [json.loads(path.read_text()) for path in written if path.suffix == ".json"]
    assert len(schemas) == len(contracts())
    assert {"properties", "required"} <= set.intersection(*map(set, schemas))


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (timedelta(days=30), "30 days"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(hours=2), "2 hours"),
        (timedelta(seconds=90), "90 seconds"),
    ],
)
def test_durations_in_words(duration: timedelta, said: str) -> None:
    assert words(duration) == said


def test_ranges_in_words() -> None:
    assert span(0, 500, "AQI") == "0 to 500 AQI"
    assert span(None, 5, None) == "at most 5"
    assert span(1, None, "m") == "at least 1 m"
