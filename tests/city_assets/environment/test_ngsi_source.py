"""The examples of the Smart Data Models (CC BY 4.0, shortened), in the forms in which they are published."""

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from city.contracts import validity
from city.sources.bodies import split_body
from city.sources.mapping import map_messages
from city.sources.outcomes import outcomes
from city_assets.environment.contract import SENSORS
from city_assets.environment.sources import NGSI

NOW = datetime(2026, 11, 27, 15, tzinfo=UTC)
MADRID = "urn:ngsi-ld:AirQualityObserved:Madrid-AmbientObserved-28079004-2016-03-15T11:00:00"
POINT = {"type": "Point", "coordinates": [-3.712247222222222, 40.423852777777775]}
STATION = "urn:ngsi-ld:PointOfInterest:28079004-Pza.deEspanya"


def prop(value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "Property", "value": value} | more


AIR_LD = {  # dataModel.Environment, AirQualityObserved, examples/example-normalized-ld.jsonld
    "id": MADRID,
    "type": "AirQualityObserved",
    "dateObserved": prop("2016-03-15T11:00:00/2016-03-15T12:00:00"),
    "areaServed": prop("Brooklands"),
    "CO": prop(500, unitCode="GP"),
    "temperature": prop(12.2),
    "refPointOfInterest": {"type": "Relationship", "object": STATION},
    "windSpeed": prop(0.64),
    "location": {"type": "GeoProperty", "value": POINT},
    "airQualityIndex": prop(65),
    "address": prop({"addressCountry": "ES", "addressLocality": "Madrid", "type": "PostalAddress"}),
    "relativeHumidity": prop(0.54),
    "precipitation": prop(0),
    "NO2": prop(69, unitCode="GQ"),
    "@context": ["https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context.jsonld"],
}
AIR_SIMPLIFIED = {  # examples/example.jsonld
    "id": MADRID,
    "type": "AirQualityObserved",
    "no2": 69,
    "address": {"addressCountry": "ES", "addressLocality": "Madrid", "type": "PostalAddress"},
    "airQualityIndex": 65,
    "airQualityLevel": "moderate",
    "areaServed": "Brooklands",
    "dateObserved": "2016-03-15T12:00:00",
    "location": POINT,
    "precipitation": 0,
    "refPointOfInterest": STATION,
    "relativeHumidity": 0.54,
    "temperature": 12.2,
    "windSpeed": 0.64,
}
AIR_V2 = {  # examples/example-normalized.json
    "id": MADRID,
    "type": "AirQualityObserved",
    "dateObserved": {"type": "DateTime", "value": "2016-03-15T12:00:00"},
    "areaServed": {"type": "Text", "value": "Brooklands"},
    "co": {"type": "Number", "value": 500, "metadata": {"unitCode": {"value": "GP"}}},
    "temperature": {"type": "Number", "value": 12.2},
    "refPointOfInterest": {"type": "Text", "value": STATION},
    "windSpeed": {"type": "Number", "value": 0.64},
    "location": {"type": "geo:json", "value": POINT},
    "airQualityIndex": {"type": "Number", "value": 65},
    "relativeHumidity": {"type": "Number", "value": 0.54},
    "precipitation": {"type": "Number", "value": 0},
}
AIR_FEATURE = {  # examples/example-geojsonfeature.json
    "id": MADRID,
    "type": "Feature",
    "geometry": {"type": "GeoProperty", "value": POINT},
    "properties": {name: value for name, value in AIR_LD.items() if name != "id"},
}
NOISE_LD = {  # dataModel.Environment, NoiseLevelObserved, examples/example-normalized.jsonld
    "id": "urn:ngsi-ld:NoiseLevelObserved:Vitoria-NoiseLevelObserved-2016-12-28T11:00:00_2016-12-28T12:00:00",
    "type": "NoiseLevelObserved",
    "LAS": prop(91.6),
    "LAeq": prop(67.8),
    "dateObservedFrom": prop({"@type": "DateTime", "@value": "2016-12-28T11:00:00.00Z"}),
    "dateObservedTo": prop({"@type": "DateTime", "@value": "2016-12-28T12:00:00.00Z"}),
    "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [-2.698, 42.8491]}},
}
WEATHER = {  # dataModel.Weather, WeatherObserved, examples/example-normalized.jsonld
    "id": "urn:ngsi-ld:WeatherObserved:Spain-WeatherObserved-Valladolid-2016-11-30T07:00:00.00Z",
    "type": "WeatherObserved",
    "dateObserved": "2016-11-30T07:00:00.00Z",
    "temperature": 3.3,
    "precipitation": 0,
    "atmosphericPressure": 938.9,
    "refDevice": "urn:ngsi-ld:Device:device-0A3478",
    "windSpeed": 2,
    "location": {"type": "Point", "coordinates": [-4.754444444, 41.640833333]},
    "relativeHumidity": 1,
}
AIR = {"temperature": 12.2, "wind": 0.64, "air_quality": 65.0, "humidity": 54.0, "precipitation": 0.0}


def events_of(content: Any) -> pl.DataFrame:
    mapped = map_messages(NGSI, [json.dumps(content).encode()], (), "UTC", NOW)
    assert mapped.rejected == {}
    valid, invalid = validity.split(SENSORS, mapped.events.with_columns(_arrived=pl.col("timestamp")))
    assert invalid["reasons"].to_list() == []
    return valid


@pytest.mark.parametrize("content", [AIR_LD, AIR_SIMPLIFIED, AIR_V2, AIR_FEATURE], ids=["LD", "plain", "v2", "geo"])
def test_air_quality_is_the_same_in_each_published_form(content: dict[str, Any]) -> None:
    events = events_of(content)
    assert dict(events.select("type", "value").iter_rows()) == AIR
    assert set(events["timestamp"]) == {datetime(2016, 3, 15, 12, tzinfo=UTC)}
    assert events["sensor_id"][0].startswith(STATION)
    assert set(events.select("location", "latitude", "longitude").iter_rows()) == {
        ("Brooklands", *reversed(POINT["coordinates"]))  # type: ignore[misc]
    }


def test_noise_and_weather_in_a_notification_of_a_broker() -> None:
    envelope = {"id": "urn:ngsi-ld:Notification:1", "type": "Notification", "notifiedAt": "2016-12-28T12:00:01Z"}
    events = events_of(envelope | {"data": [NOISE_LD, WEATHER]})
    assert dict(events.select("type", "value").iter_rows()) == {
        "noise": 67.8,
        "temperature": 3.3,
        "pressure": 938.9,
        "precipitation": 0.0,
        "wind": 2.0,
        "humidity": 100.0,
    }
    assert events.filter(pl.col("type") == "noise")["timestamp"][0] == datetime(2016, 12, 28, 12, tzinfo=UTC)
    assert set(events.filter(pl.col("type") != "noise")["timestamp"]) == {datetime(2016, 11, 30, 7, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("attribute", "code", "value", "expected"),
    [
        ("temperature", "FAH", 68, ("temperature", 20.0)),
        ("temperature", "KEL", 293.15, ("temperature", 20.0)),
        ("relativeHumidity", "P1", 54, ("humidity", 54.0)),
        ("relativeHumidity", "C62", 0.54, ("humidity", 54.0)),
        ("atmosphericPressure", "PAL", 93890, ("pressure", 938.9)),
        ("windSpeed", "KMH", 36, ("wind", 10.0)),
        ("pm10", "GP", 0.02, ("pm10", 20.0)),
    ],
)
def test_a_value_is_converted_from_the_unit_of_its_code(
    attribute: str, code: str, value: float, expected: tuple[str, float]
) -> None:
    observed = {"value": value, "unitCode": code, "observedAt": "2026-11-27T10:00:00Z"}
    events = events_of({"id": "a", "type": "WeatherObserved", attribute: {"type": "Property"} | observed})
    assert events.select("type", "value").rows() == [expected]
    assert events["timestamp"][0] == datetime(2026, 11, 27, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"temperature": prop(3, unitCode="XYZ")}, "temperature.value: 3.0 is not a number in a known unit (temperat"),
        ({"temperature": prop(3, unitCode="GQ")}, "temperature.value: 3.0 is not a number in a known unit (temperat"),
        ({"temperature": prop("warm")}, 'item 0: temperature.value: got "warm" (text)'),
        ({"dateObserved": prop("soon")}, "soon is not an ISO 8601 time"),
        ({"dateObserved": None}, "timestamp: nothing at observedAt.value|dateObserved.value"),
        ({"type": "Device"}, "type: Device is not one of AirQualityObserved, WeatherObserved"),
    ],
)
def test_what_is_wrong_is_told(change: dict[str, Any], reason: str) -> None:
    wrong = {name: value for name, value in (AIR_LD | change).items() if value is not None}
    mapped = map_messages(NGSI, [json.dumps([wrong, WEATHER]).encode()], (), "UTC", NOW)
    assert reason in mapped.rejected[0][0], mapped.rejected
    assert set(mapped.events["sensor_id"]) >= {"urn:ngsi-ld:Device:device-0A3478_wind"}


def test_a_temporal_entity_has_a_reading_for_each_time() -> None:
    values = [[3.5, "2026-11-27T10:00:00Z"], [3.6, "2026-11-27T10:05:00Z"]]
    entity = WEATHER | {"temperature": {"type": "Property", "values": values}}
    events = events_of(entity).filter(pl.col("type") == "temperature").sort("timestamp")
    assert events.select("timestamp", "value").rows() == [
        (datetime(2026, 11, 27, 10, tzinfo=UTC), 3.5),
        (datetime(2026, 11, 27, 10, 5, tzinfo=UTC), 3.6),
    ]


def test_bodies_that_are_no_entities_do_not_harm_others() -> None:
    bodies = [json.dumps(AIR_LD).encode(), b"online", b"3", json.dumps(WEATHER).encode()]
    results = outcomes([NGSI], bodies, (), "UTC", NOW)
    assert [len(outcome.events) for outcome in results] == [5, 0, 0, 5]
    assert results[1].reasons[0].startswith("message: not JSON")
    assert results[2].reasons == ["message: neither an entity of NGSI, nor a list of entities, nor a notification"]


@pytest.mark.parametrize("media", ["application/json", "application/ld+json", "application/geo+json"])
def test_a_broker_may_post_json_ld(media: str) -> None:
    assert split_body(json.dumps(AIR_LD).encode(), media, None) == [json.dumps(AIR_LD).encode()]
