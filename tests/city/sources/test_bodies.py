"""Bodies of requests for sources."""

import json
from dataclasses import replace

from city.sources.bodies import split_body
from city.sources.mapping import map_messages
from tests.city.sources.test_rejections import LIST, item

ITEMS = [item(), item(id="b")]


def test_a_list_stays_whole_for_a_source_whose_message_is_a_list() -> None:
    source = replace(LIST, items="$")
    messages = split_body(json.dumps(ITEMS).encode(), "application/json", source)
    assert map_messages(source, messages).events["sensor_id"].to_list() == ["a", "b"]
    lines = split_body(b"\n".join([json.dumps(ITEMS).encode()] * 2), "application/x-ndjson", source)
    assert map_messages(source, lines).events["sensor_id"].to_list() == ["a", "b", "a", "b"]


def test_a_list_is_many_messages_for_another_source() -> None:
    body = json.dumps([{"data": ITEMS}, {"data": ITEMS}]).encode()
    assert len(split_body(body, "application/json", LIST)) == 2


def test_an_item_of_a_list_is_taken_as_it_stands() -> None:
    items = ['{"a": 1, "a": 2}', "1" * 300, "[" * 300 + "]" * 300, '{"b": "],["}']
    body = " [ " + " ,\n".join(items) + " ] "
    assert split_body(body.encode(), "application/json", LIST) == [item.encode() for item in items]
    assert split_body(b" [ ] ", "application/json", LIST) == []


def test_the_values_of_csv_stay_texts_for_a_source() -> None:
    (row,) = split_body(b"timestamp,t\n1,\n", "text/csv", LIST)
    assert json.loads(row) == {"timestamp": "1"}
