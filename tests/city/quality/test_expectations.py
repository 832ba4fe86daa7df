"""Expectations of rows and of a day: what each finds, and that Great Expectations finds the same."""

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.contracts import Contract, Field
from city.contracts.model import Rule
from city.quality import suites
from city.quality.expectations import LIMITS, ExpectationResult, judge, of_day, of_rows, with_rules
from city.settings import Settings
from city.streaming.decode import decode
from city_assets.environment.contract import SENSORS
from simulators.faults import FaultRates
from tests.events import NOW, encode, raw
from tests.sensors import fleet

BEST = pl.DataFrame({"rows": [9]} | {name: [0.0] for name in LIMITS})
WORST = pl.DataFrame({"rows": [0]} | {name: [1.0] for name in LIMITS})
THINGS = Contract(
    name="things",
    topic="things",
    version=1,
    description="Things.",
    key="id",
    event_time="at",
    fields=(
        Field(name="id", kind="string", description="who", pattern="[a-z]+"),
        Field(name="at", kind="timestamp", description="when"),
        Field(name="size", kind="float", description="how large", minimum=0, maximum=10, nullable=True),
        Field(name="colour", kind="string", description="which", choices=("red", "blue"), nullable=True),
    ),
    rules=(Rule(name="small_is_red", sql="size > 1 OR colour = 'red'", description="small things are red"),),
)


@pytest.fixture(scope="module")
def readings() -> pl.DataFrame:
    """Bronze rows of eighty sensors, five readings each."""
    moments = [NOW - timedelta(minutes=5 * n) for n in range(5)]
    events = [sensor.reading(moment) for moment in reversed(moments) for sensor in fleet(FaultRates(), 3)[:80]]
    rows, rejects = decode(SENSORS, raw(encode(*events)), {})
    assert rejects.is_empty()
    return rows


def things(*rows: tuple[str | None, float | None, str | None]) -> pl.DataFrame:
    """Bronze rows of (id, size, colour)."""
    count = len(rows)
    columns: dict[str, Any] = {"id": [r[0] for r in rows], "at": [NOW] * count}
    columns |= {"size": [r[1] for r in rows], "colour": [r[2] for r in rows]}
    columns |= {"_partition": [0] * count, "_offset": list(range(count))}
    columns |= {"_arrived": [NOW] * count, "_watermark": [NOW] * count}
    return pl.DataFrame(columns, schema_overrides={"id": pl.String, "size": pl.Float64, "colour": pl.String})


def failed(outcomes: list[ExpectationResult]) -> set[str]:
    return {outcome.name for outcome in outcomes if not outcome.passed}


def outcome(name: str, rows: pl.DataFrame) -> ExpectationResult:
    return next(judgement for judgement in judge(THINGS, rows, BEST) if judgement.name == name)


def test_each_declaration_of_a_contract_is_an_expectation() -> None:
    assert [expectation.name for expectation in of_rows(THINGS)] == [
        "schema",
        "id_complete",
        "id_spelled",
        "at_complete",
        "size_in_range",
        "colour_known",
        "rule_small_is_red",
        "coordinates_once",
    ]
    quantities = {expectation.name for expectation in of_rows(SENSORS)}
    assert {"traffic_in_range", "noise_in_range", "type_known"} <= quantities


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (("a", 5.0, "blue"), set()),
        (("a", 0.0, "red"), set()),
        (("a", 10.0, None), set()),
        ((None, 5.0, "red"), {"id_complete"}),
        (("A1", 5.0, "red"), {"id_spelled"}),
        (("a\nb", 5.0, "red"), {"id_spelled"}),
        (("a", -0.1, "red"), {"size_in_range"}),
        (("a", 10.1, "red"), {"size_in_range"}),
        (("a", float("nan"), "red"), set()),
        (("a", 5.0, "green"), {"colour_known"}),
        (("a", 0.5, "blue"), {"rule_small_is_red"}),
        (("a", None, None), {"rule_small_is_red"}),
    ],
)
def test_a_row_fails_what_it_does_not_meet_and_nothing_else(
    row: tuple[str | None, float | None, str | None], wrong: set[str]
) -> None:
    rows = things(("x", 2.0, "red"), row, ("y", 3.0, None))
    assert failed(judge(THINGS, rows, BEST)) == wrong
    for name in wrong:
        detail = outcome(name, rows).detail
        assert (detail["element_count"], detail["unexpected_count"]) == (3, 1)
        assert detail["unexpected_percent"] == pytest.approx(100 / 3)


def test_two_rows_of_one_offset_are_both_unexpected() -> None:
    rows = things(("a", 2.0, "red"), ("b", 2.0, "red"), ("c", 2.0, "red"))
    twice = rows.with_columns(_offset=pl.Series([4, 7, 4]))
    assert failed(judge(THINGS, twice, BEST)) == {"coordinates_once"}
    shown = outcome("coordinates_once", twice).detail["partial_unexpected_list"]
    assert shown == [{"_offset": 4, "_partition": 0}] * 2
    other_partition = twice.with_columns(_partition=pl.Series([0, 0, 1]))
    assert failed(judge(THINGS, other_partition, BEST)) == set()


def test_columns_that_are_missing_or_too_many_are_named() -> None:
    rows = things(("a", 2.0, "red"))
    assert failed(judge(THINGS, rows.with_columns(more=1), BEST)) == {"schema"}
    fewer = rows.drop("_offset")
    assert failed(judge(THINGS, fewer, BEST)) == {"schema", "coordinates_once"}
    assert outcome("coordinates_once", fewer).detail == {"missing_columns": ["_offset"]}


def test_a_detail_lists_at_most_twenty_values() -> None:
    detail = outcome("size_in_range", things(*[("a", 99.0, "red")] * 50)).detail
    assert detail["unexpected_count"] == 50
    assert detail["partial_unexpected_list"] == [{"size": 99.0}] * 20


@settings(deadline=None)
@given(sizes=st.lists(st.none() | st.floats(-20, 20), min_size=1, max_size=30))
def test_values_out_of_range_are_counted(sizes: list[float | None]) -> None:
    judgement = outcome("size_in_range", things(*(("a", size, "red") for size in sizes)))
    wrong = [size for size in sizes if size is not None and not 0 <= size <= 10]
    assert judgement.passed == (not wrong)
    assert judgement.detail["unexpected_count"] == len(wrong)
    assert [row["size"] for row in judgement.detail.get("partial_unexpected_list", [])] == wrong[:20]


def test_a_rule_that_cannot_be_told_is_not_obeyed() -> None:
    rules = with_rules(THINGS, things(("a", 2.0, None), ("a", 0.5, "red"), ("a", 0.5, "blue"), ("a", None, None)))
    assert rules["_rule_small_is_red"].to_list() == [True, True, False, False]


@pytest.mark.parametrize("measure", LIMITS)
def test_a_day_fails_above_the_limit_of_each_measure(measure: str) -> None:
    limit = LIMITS[measure]
    no_rows = things()
    assert failed(judge(THINGS, no_rows, BEST.with_columns(pl.lit(limit).alias(measure)))) == set()
    above = judge(THINGS, no_rows, BEST.with_columns(pl.lit(limit + 0.001).alias(measure)))
    assert failed(above) == {measure.removesuffix("_share")}


def test_a_day_without_rows_is_judged_by_its_measures_alone() -> None:
    judgements = judge(THINGS, things(), BEST.with_columns(rows=pl.lit(0)))
    assert [outcome.name for outcome in judgements] == [expectation.name for expectation in of_day()]
    assert failed(judgements) == {"not_empty"}


def test_rows_block_what_is_made_of_them_and_a_day_does_not() -> None:
    judgements = judge(THINGS, things(("a", 2.0, "red")), BEST)
    of_the_day = {expectation.name for expectation in of_day()}
    assert {outcome.name for outcome in judgements if not outcome.blocking} == of_the_day


def test_great_expectations_and_polars_say_the_same_of_each_expectation(
    config: Settings, readings: pl.DataFrame
) -> None:
    broken = {
        "sensor_id": pl.lit("Nobody!"),
        "value": pl.lit(-999.0),
        "type": pl.lit("smell"),
        "location": pl.lit(None, pl.String),
        "unit": pl.lit("°F"),
        "_offset": pl.lit(10_000, pl.Int64),
    }
    parts = [
        readings.slice(10 * n, 10).with_columns(value.alias(name)) for n, (name, value) in enumerate(broken.items())
    ]
    bad = pl.concat([readings.tail(100), *parts])
    for rows, day, all_fail in ((readings, BEST, False), (bad, WORST, True), (readings.drop("unit"), BEST, False)):
        of_polars = {one.name: one for one in judge(SENSORS, rows, day)}
        of_ge = {one.name: one for one in suites.judge(SENSORS, rows, day, config.home / "docs")}
        assert of_polars.keys() == of_ge.keys()
        assert {name: one.passed for name, one in of_polars.items()} == {n: one.passed for n, one in of_ge.items()}
        counts = {
            name: one.detail["unexpected_count"] for name, one in of_ge.items() if "unexpected_count" in one.detail
        }
        assert len(counts) > 10
        assert {name: of_polars[name].detail["unexpected_count"] for name in counts} == counts
        if all_fail:
            assert failed([*of_polars.values()]) >= {
                "sensor_id_spelled",
                "type_known",
                "unit_known",
                "coordinates_once",
                "traffic_in_range",
                "not_empty",
                "stuck",
                "malformed",
            }
        else:
            assert all(one.passed for one in of_polars.values()) == ("unit" in rows.columns)
    pages = {path.name for path in (config.home / "docs").rglob("*.html")}
    assert "index.html" in pages
