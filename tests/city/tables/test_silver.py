"""Silver tables: which of a contract's events they keep, and what they know of each."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import narwhals as nw
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from city.contracts import Contract, Field, H3Cell
from city.tables.calendar import calendar
from city.tables.model import Column, Frame, Source, Table
from city.tables.schema import schema
from city.tables.silver import event_columns, first_of, latest_table, log_table, silver_table

DAY = date(2026, 5, 4)
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
THINGS = Contract(
    name="things",
    topic="things",
    version=1,
    description="Things.",
    key="id",
    event_time="at",
    fields=(
        Field(name="id", kind="string", description="who"),
        Field(name="at", kind="timestamp", description="when"),
        Field(name="size", kind="float", description="how large", unit="m", nullable=True),
    ),
)
SCHEMA = {
    "id": pl.String(),
    "at": pl.Datetime("us", "UTC"),
    "size": pl.Float64(),
    "_partition": pl.Int64(),
    "_offset": pl.Int64(),
    "_arrived": pl.Datetime("us", "UTC"),
}
Event = tuple[str, datetime, float, int, int, datetime]


@st.composite
def event_lists(draw: st.DrawFn) -> list[Event]:
    """Events of few keys and times, with the offsets of Kafka: once each, and in order of arrival in a partition."""
    count = draw(st.integers(0, 25))
    arrived = sorted(draw(st.lists(st.integers(0, 50), min_size=count, max_size=count)))
    events = [
        (
            draw(st.sampled_from("abc")),
            NOON + timedelta(minutes=draw(st.integers(0, 3))),
            float(offset),
            draw(st.integers(0, 1)),
            offset,
            NOON + timedelta(seconds=arrived[offset]),
        )
        for offset in range(count)
    ]
    return list(draw(st.permutations(events)))


def frame(events: list[Event]) -> Frame:
    rows = pl.DataFrame(events, SCHEMA, orient="row").with_columns(_at_seconds=pl.col("at").dt.epoch("s"))
    return nw.from_native(rows.lazy())


def rows(result: Frame) -> list[dict[str, Any]]:
    collected: pl.DataFrame = result.collect().to_native()
    return collected.sort("id", "at").to_dicts()


def transformed(table: Table, **frames: Frame) -> pl.DataFrame:
    assert table.transform
    collected: pl.DataFrame = table.transform(**frames).collect().to_native()
    assert set(schema(table)) <= set(collected.columns), "a transform gives every declared column"
    return collected.sort(table.key)


@settings(deadline=None)
@given(events=event_lists())
def test_of_events_with_one_key_and_time_the_first_that_kafka_had_stays(events: list[Event]) -> None:
    kept: dict[tuple[str, datetime], Event] = {}
    for event in sorted(events, key=lambda e: (e[5], e[3], e[4])):
        kept.setdefault(event[:2], event)
    expected = [kept[key][2] for key in sorted(kept)]
    assert [row["size"] for row in rows(first_of(frame(events), "id", "at"))] == expected
    logged = transformed(log_table(THINGS), things=frame(events))
    assert logged["size"].to_list() == expected


@settings(deadline=None)
@given(events=event_lists())
def test_the_latest_table_has_the_newest_event_of_each_key(events: list[Event]) -> None:
    newest: dict[str, Event] = {}
    for event in sorted(events, key=lambda e: (e[1], e[4])):
        newest[event[0]] = event
    latest = transformed(latest_table(THINGS), things=frame(events))
    assert dict(zip(latest["id"], latest["size"], strict=True)) == {key: event[2] for key, event in newest.items()}
    assert not latest_table(THINGS).daily


def test_silver_rows_have_the_calendar_and_what_the_domain_adds() -> None:
    double = Column(name="double", kind="float", description="twice its size", unit="m", nullable=True)

    def enrich(rows: Frame, factors: Frame) -> Frame:
        return rows.join(factors, on="id", how="left").with_columns(double=nw.col("size") * nw.col("factor"))

    table = silver_table(THINGS, (double,), {"factors": Source(table="silver/factors")}, enrich)
    events: list[Event] = [
        ("a", NOON, 1.0, 0, 0, NOON),
        ("a", NOON, 9.0, 0, 1, NOON),  # sent twice
        ("a", NOON - timedelta(days=1), 5.0, 0, 2, NOON),  # of a day that is not built
    ]
    factors = nw.from_native(pl.LazyFrame({"id": ["a"], "factor": [2.0]}))
    slots = nw.from_native(calendar([DAY], "America/New_York", "US").lazy())
    built = transformed(table, things=frame(events), factors=factors, calendar=slots)
    assert built.select("id", "size", "double", "day", "local_hour").rows() == [("a", 1.0, 2.0, DAY, 8)]
    assert set(table.sources) == {"things", "factors", "calendar"}
    assert table.hourly_slices
    assert transformed(silver_table(THINGS), things=frame(events), calendar=slots)["size"].to_list() == [1.0]


def test_columns_know_their_unit_and_where_they_come_from() -> None:
    places = Contract(
        name="places",
        topic="places",
        version=1,
        description="Places.",
        key="id",
        event_time="at",
        fields=(
            *THINGS.fields,
            Field(name="latitude", kind="float", description="where"),
            Field(name="longitude", kind="float", description="where"),
        ),
        cells=(H3Cell(name="cell", resolution=7),),
    )
    columns = {column.name: column for column in event_columns(places)}
    assert (columns["size"].unit, columns["size"].nullable) == ("m", True)
    assert columns["size"].origins == ("places.size",)
    assert columns["cell"].description == "H3 cell, resolution 7"
    assert columns["cell"].origins == ("places.latitude", "places.longitude")
