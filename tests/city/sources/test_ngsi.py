"""The forms of NGSI: what an entity becomes, whatever form a broker sends it in."""

import json
from typing import Any

import pytest

from city.sources.model import FormatError
from city.sources.ngsi import entities_to_json


def read(content: Any) -> list[dict[str, Any]]:
    entities: list[dict[str, Any]] = json.loads(entities_to_json(json.dumps(content).encode()))["entities"]
    return entities


PLACE = {"type": "Point", "coordinates": [8.6, 49.9]}
ENTITY = {"id": "urn:ngsi-ld:WeatherObserved:1", "type": "WeatherObserved"}
EXPECTED = ENTITY | {
    "location": {"value": PLACE},
    "dateObserved": {"value": "2026-11-27T10:00:00Z"},
    "temperature": {"value": 3.5, "unit": "CEL"},
}
_CORE, _MODEL = "https://uri.etsi.org/ngsi-ld/", "https://smartdatamodels.org/dataModel.Weather/"
EXPANDED = {
    "@id": ENTITY["id"],
    "@type": [f"{_MODEL}WeatherObserved"],
    f"{_CORE}location": [
        {
            "@type": [f"{_CORE}GeoProperty"],
            f"{_CORE}hasValue": [{"@type": ["Point"], "coordinates": [8.6, 49.9]}],
        }
    ],
    f"{_MODEL}dateObserved": [
        {
            "@type": [f"{_CORE}Property"],
            f"{_CORE}hasValue": [{"@type": f"{_CORE}DateTime", "@value": "2026-11-27T10:00:00Z"}],
        }
    ],
    "https://smartdatamodels.org/temperature": [
        {
            "@type": [f"{_CORE}Property"],
            f"{_CORE}hasValue": [{"@value": 3.5}],
            f"{_CORE}unitCode": [{"@value": "CEL"}],
        }
    ],
}
NORMALIZED = ENTITY | {
    "location": {"type": "GeoProperty", "value": PLACE},
    "dateObserved": {"type": "Property", "value": {"@type": "DateTime", "@value": "2026-11-27T10:00:00Z"}},
    "temperature": {"type": "Property", "value": 3.5, "unitCode": "CEL"},
    "@context": ["https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context.jsonld"],
}


@pytest.mark.parametrize(
    "content",
    [
        NORMALIZED,
        [NORMALIZED],
        ENTITY
        | {
            "location": {"value": PLACE},
            "dateObserved": "2026-11-27T10:00:00Z",
            "temperature": {"value": 3.5, "unitCode": "CEL"},
        },
        ENTITY
        | {
            "location": {"type": "geo:json", "value": PLACE},
            "dateObserved": {"type": "DateTime", "value": "2026-11-27T10:00:00Z", "metadata": {}},
            "temperature": {
                "type": "Number",
                "value": 3.5,
                "metadata": {"unitCode": {"type": "Text", "value": "CEL"}},
            },
        },
        EXPANDED,
        {"id": ENTITY["id"], "type": "Feature", "geometry": PLACE, "properties": NORMALIZED},
        {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "geometry": PLACE, "properties": NORMALIZED}],
        },
    ],
    ids=["normalized", "list", "concise", "v2", "expanded", "feature", "features"],
)
def test_an_entity_is_the_same_in_every_form(content: Any) -> None:
    assert read(content) == [EXPECTED]


def test_a_simplified_entity_has_its_values() -> None:
    simplified = ENTITY | {"location": PLACE, "dateObserved": "2026-11-27T10:00:00Z", "temperature": 3.5}
    assert read(simplified) == [EXPECTED | {"temperature": {"value": 3.5}}]


@pytest.mark.parametrize(
    "envelope",
    [
        {"id": "urn:ngsi-ld:Notification:1", "type": "Notification", "notifiedAt": "2026-11-27T10:00:05Z"},
        {"subscriptionId": "5fd1f31e8b9b83697b855a5d", "notifiedAt": "2026-11-27T10:00:05Z"},
        {"@type": [f"{_CORE}Notification"], f"{_CORE}notifiedAt": {"@value": "2026-11-27T10:00:05Z"}},
    ],
    ids=["NGSI-LD", "v2", "expanded"],
)
def test_a_notification_has_its_entities(envelope: dict[str, Any]) -> None:
    name = f"{_CORE}data" if "@type" in envelope else "data"
    entities = read(envelope | {name: [NORMALIZED, EXPANDED]})
    assert entities == [EXPECTED | {"notifiedAt": {"value": "2026-11-27T10:00:05Z"}}] * 2


FIRST, SECOND = "2026-11-27T10:00:00Z", "2026-11-27T10:05:00Z"


@pytest.mark.parametrize(
    "temperature",
    [
        [
            {"type": "Property", "value": 3.5, "observedAt": FIRST},
            {"type": "Property", "value": 3.6, "observedAt": SECOND},
        ],
        {"type": "Property", "values": [[3.5, FIRST], [3.6, SECOND]]},
        {"type": "Property", "values": [{"value": 3.5, "observedAt": FIRST}, {"value": 3.6, "observedAt": SECOND}]},
    ],
    ids=["instances", "simplified", "values"],
)
def test_a_temporal_entity_is_an_entity_for_each_time(temperature: Any) -> None:
    wind = {"type": "Property", "value": 2, "observedAt": SECOND}
    entities = read(ENTITY | {"location": PLACE, "temperature": temperature, "windSpeed": wind})
    shared = ENTITY | {"location": {"value": PLACE}}
    assert entities == [
        shared | {"temperature": {"value": 3.5}, "observedAt": {"value": FIRST}},
        shared | {"temperature": {"value": 3.6}, "windSpeed": {"value": 2}, "observedAt": {"value": SECOND}},
    ]


def test_a_number_without_a_time_does_not_get_that_of_another() -> None:
    entities = read(ENTITY | {"temperature": {"value": 3, "observedAt": FIRST}, "windSpeed": 2, "dateObserved": SECOND})
    assert entities == [
        ENTITY | {"dateObserved": {"value": SECOND}, "temperature": {"value": 3}, "observedAt": {"value": FIRST}},
        ENTITY | {"dateObserved": {"value": SECOND}, "windSpeed": {"value": 2}},
    ]


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("2016-03-15T11:00:00/2016-03-15T12:00:00", "2016-03-15T12:00:00"),
        ("a/b", "a/b"),
        ({"type": "Relationship", "object": "urn:ngsi-ld:Device:1"}, "urn:ngsi-ld:Device:1"),
        (["urn:ngsi-ld:Device:1"], "urn:ngsi-ld:Device:1"),
        ({"type": "Property", "value": "urn:ngsi-ld:null"}, None),
        ({"type": "Polygon", "coordinates": [[[8, 49], [9, 49], [9, 50], [8, 49]]]}, {"type": "Polygon"}),
        ({"type": "Property", "value": {"@type": "@json", "@value": None}}, None),
    ],
)
def test_a_value_is_plain(raw: Any, value: Any) -> None:
    assert read(ENTITY | {"x": raw}) == [ENTITY | {"x": {"value": value}}]


@pytest.mark.parametrize("body", [b"online", b"3", b'["x"]', b'{"type": "Notification", "data": [1]}'])
def test_what_is_no_entity_is_told(body: bytes) -> None:
    with pytest.raises(FormatError, match="not JSON|neither an entity of NGSI"):
        entities_to_json(body)
