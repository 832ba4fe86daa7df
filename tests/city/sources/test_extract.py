"""A message becomes the same on the fast path and on the slow path: alone, and beside one that cannot be read."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from city.sources.mapping import map_messages
from city.sources.model import Always, Arrived, At, Source
from tests.city.sources.test_rejections import LIST

AT = '"at":"2026-11-27T10:00:00Z"'
FLAT = replace(LIST, items=None, fields=dict(LIST.fields) | {"battery": At("b")})
WHOLE = replace(LIST, items="$")


def check_parity(source: Source, *payloads: bytes) -> dict[int, list[str]]:
    """Asserts that messages become the same alone, together, and beside one that no path can read. Returns reasons."""
    together = map_messages(source, payloads)
    beside = map_messages(source, [*payloads, b"unreadable"])
    assert beside.rejected.pop(len(payloads))[0].startswith("message: not JSON")
    assert together.rejected == beside.rejected
    assert_frame_equal(together.events, beside.events)
    for row, payload in enumerate(payloads):
        alone = map_messages(source, [payload])
        assert alone.rejected.get(0) == together.rejected.get(row)
        assert_frame_equal(alone.events.drop("_row"), together.events.filter(_row=row).drop("_row"))
    return together.rejected


@pytest.mark.parametrize(
    "text",
    [
        '{%s,"id":"a","t":1,"t":2}',
        '{%s,"id":"a","t" : 1 , "t":2}',
        '{%s,"id":"a","t":1,"\\u0074":2}',
        '{%s,"id":"a","t":null,"t":2}',
        '{%s,"id":"a","t":1,"note":"\\"t\\"","t":2}',
        '{%s,"id":"a","t":1,"note":"\\u0022\\u0022","t":2}',
        '{%s,"id":"a","t":1,"nested":{"t":1,"t":2}}',
        '{%s,"id":"a","id":"b","t":1}',
    ],
)
def test_a_repeated_key_that_the_source_reads_is_refused(text: str) -> None:
    (reasons,) = check_parity(FLAT, (text % AT).encode()).values()
    assert reasons[0].startswith('message: repeats the key "')
    item = (text % AT).encode()
    for source, payload in ((LIST, b'{"data":[%b]}' % item), (WHOLE, b"[%b]" % item)):
        (reasons,) = check_parity(source, payload).values()
        assert reasons[0].startswith('message: repeats the key "')


@pytest.mark.parametrize(
    "text",
    [
        '{%s,"id":"a","t":1,"other":1,"other":2}',
        '{%s,"id":"t","t":1}',
        '{%s,"id":"a","t":1,"nested":{"t":2}}',
        '{%s,"id":"a","t":1,"note":"\\"t\\" \\u00b0"}',
        '{%s,"id":"a","t":1,"wind":null}',
        '  {%s,"id":"a","t":1}\r',
    ],
)
def test_a_key_that_stands_once_is_read(text: str) -> None:
    payload = (text % AT).encode()
    assert check_parity(FLAT, payload, payload) == {}
    assert check_parity(LIST, b'{"data":[%b]}' % payload) == check_parity(WHOLE, b"[%b]" % payload) == {}


@pytest.mark.parametrize(
    "payload",
    [
        b'[{"id":"a"}],"x":1',
        b'[{"id":"a"}],"x":[2]',
        b"[1]}\n{[2]",
        b'[]}{"$":[]',
        b"",
        b"5",
        b"[1] [2]",
        b'{"id":"a"}',
    ],
)
def test_what_is_no_list_is_refused_on_both_paths(payload: bytes) -> None:
    assert check_parity(WHOLE, payload)[0][0].startswith("message: ")


@pytest.mark.parametrize(
    "payload",
    [b'{"a":1} {"b":2}', b'{"a":1}\n{"b":2}', b'{"a":1}{"b":2}', b"", b"\n", b"[]", b'{"a":1},', b'{"a":01}', b"{}}"],
)
def test_what_is_no_object_is_refused_on_both_paths(payload: bytes) -> None:
    good = b'{%b,"id":"a","t":1}' % AT.encode()
    assert check_parity(FLAT, good, payload, good).keys() == {1}


def test_half_of_a_surrogate_pair_is_refused_where_it_is_read() -> None:
    half = b'{%b,"id":"\\ud800","t":1}' % AT.encode()
    assert check_parity(FLAT, half) == {0: ["id: got a text with half of a surrogate pair; expected a text"]}
    unread = b'{%b,"id":"a","t":1,"note":"\\ud800"}' % AT.encode()
    assert check_parity(FLAT, unread) == {}
    kinds = replace(FLAT, when={"kind": ("", "x")})
    mapped = map_messages(kinds, [b'{"kind":"\\ud800"}', b'{"kind":5}', b'{"kind":[]}', b"unreadable"])
    assert mapped.ignored == [0, 1, 2]


def test_a_source_may_read_no_path_of_its_messages() -> None:
    fields = {"sensor_id": "a", "type": "speed", "unit": "m/s", "value": 2.0}
    constants = {name: Always(value) for name, value in fields.items()}
    source = replace(FLAT, measures={}, fields={"timestamp": Arrived(), **constants})
    mapped = map_messages(source, [b"{}", b"x", b'{"t":1}'], arrived=datetime(2026, 11, 27, tzinfo=UTC))
    assert mapped.events["_row"].to_list() == [0, 2]
    assert mapped.rejected.keys() == {1}
    whole = map_messages(replace(source, items="$"), [b"[{},{}]", b"[5]"], arrived=datetime(2026, 11, 27, tzinfo=UTC))
    assert whole.events["_row"].to_list() == [0, 0]
    assert whole.rejected == {1: ["item 0: got 5 (number); expected an object"]}


_NUMBERS = ["1", "1.0", "-0", "-0.0", "1e3", "1E5", "1.50", "1e16", "1e22", "1e-7", "123456789012345678901234567890"]
_RAW = st.sampled_from(
    [
        *_NUMBERS,
        "9" * 45,
        "9007199254740993",
        "1e400",
        "null",
        "true",
        '"x"',
        '"\\u00b0"',
        '"{"',
        "[]",
        "{}",
        "[1]",
        "01",
    ]
)
_PAIRS = st.lists(st.tuples(st.sampled_from(["id", "t", "b", "wind", "other", "\\u0074"]), _RAW), max_size=5)


@settings(deadline=None)  # a machine with other work takes its time
@given(st.lists(_PAIRS, min_size=1, max_size=4), st.sampled_from([", ", ",", " ,\t"]), st.booleans())
def test_raw_text_is_read_alike_on_both_paths(messages: Any, comma: str, accepts_text: bool) -> None:
    source = replace(FLAT, accepts=frozenset({"text"})) if accepts_text else FLAT
    texts = [comma.join([AT, *(f'"{key}":{value}' for key, value in pairs)]) for pairs in messages]
    payloads = [f"{{{text}}}".encode() for text in texts]
    check_parity(source, *payloads)
    check_parity(replace(source, items="data"), *(b'{"data":[%b]}' % payload for payload in payloads))
