"""A fleet of other machines is a declaration: contract, features and messages follow from it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from city.contracts import ContractError
from city.contracts.schema import TIMESTAMP
from city.features.plan import Plan
from city.tables.schema import schema
from city_assets.equipment.contract import readings_contract
from city_assets.equipment.fleet import Fleet, Setting, Signal, Trailing
from city_assets.equipment.life import life_inputs, sum_by_signal
from city_assets.equipment.limits import default_type
from city_assets.equipment.tables import MACHINE_SENSORS, MACHINE_TYPES, MACHINES, features_table

PRESSES = Fleet(
    name="presses",
    signals=tuple(Signal(name=n, unit="bar", minimum=0, maximum=500, description="oil") for n in ("mode", "p1", "p11")),
    windows=(
        Trailing(name="newest", readings=2, description="two strokes", is_for_life=False),
        Trailing(name="long", readings=6, description="six strokes"),
    ),
    spread_over="long",
    trends=(("newest", "long"),),
    counter=Signal(name="strokes", unit="cycles", minimum=0, maximum=1e9, description="since the last overhaul"),
    settings=(Setting(signal="mode", step=10.0),),
)
TABLE = features_table(PRESSES, "press_features", "silver/press_readings")
START = datetime(2026, 5, 4, tzinfo=UTC)


def readings(count: int) -> pl.DataFrame:
    chance = np.random.default_rng(2)
    mode = chance.choice([10.0, 20.0], count)
    return pl.DataFrame(
        {
            "machine_id": ["press_1", "press_2"] * (count // 2),
            "timestamp": [START + timedelta(seconds=20 * n) for n in range(count)],
            "mode": mode + chance.uniform(-1, 1, count),
            "p1": 10 * mode + chance.uniform(0, 10, count),
            "p11": chance.uniform(0, 100, count),
            "strokes": np.arange(count) // 2,
            "day": START.date(),
        },
        schema_overrides={"timestamp": TIMESTAMP},
    )


def ranges(*rows: tuple[str, str, float, float, str | None]) -> pl.DataFrame:
    names = ("machine_id", "signal", "normal_minimum", "normal_maximum", "condition")
    frame = pl.DataFrame(list(rows), names, orient="row")
    return frame.with_columns(sensor_id=pl.lit("s"), unit=pl.lit(None, pl.String)).select(*schema(MACHINE_SENSORS))


RANGES = ranges(
    ("press_1", "p1", 100, 110, "1"),
    ("press_1", "p1", 200, 210, "2"),
    ("press_1", "p11", 0, 100, None),
    ("press_2", "p11", 50, 50, None),
)


def features(rows: pl.DataFrame, given: pl.DataFrame = RANGES) -> pl.DataFrame:
    types = pl.DataFrame([default_type() | {"life_cap": 500.0}], schema=schema(MACHINE_TYPES))
    frames = {"readings": rows, "ranges": given, "machines": pl.DataFrame(schema=schema(MACHINES)), "types": types}
    return Plan(TABLE).run(frames).sort("machine_id", "timestamp")


def test_the_contract_has_the_signals_and_the_counter_may_be_missing() -> None:
    contract = readings_contract(PRESSES, name="press_readings", topic="press-readings")
    assert [field.name for field in contract.fields] == ["timestamp", "machine_id", "mode", "p1", "p11", "strokes"]
    assert contract.field("strokes").nullable
    assert not contract.field("p11").nullable
    assert contract.field("p11").within == "readings"


def test_a_range_is_that_of_the_operating_condition_or_of_all() -> None:
    rows = features(readings(200))
    first = rows.filter(pl.col("machine_id") == "press_1")
    assert first["p1_newest"].is_between(0, 1).all()
    assert first["p11_newest"].is_between(0, 1).all()
    assert first["mode_newest"].null_count() == first.height
    second = rows.filter(pl.col("machine_id") == "press_2")
    assert second["p1_newest"].null_count() == second.height
    assert second["p11_newest"].null_count() == second.height  # its range has no width
    assert rows["age"].max() == pytest.approx(99 / 500)


def test_a_row_needs_no_more_than_the_look_back() -> None:
    rows = readings(100)
    newest = rows.group_by("machine_id").tail(PRESSES.look_back)
    of_all = features(rows).group_by("machine_id", maintain_order=True).last()
    assert_frame_equal(features(newest).group_by("machine_id", maintain_order=True).last(), of_all, abs_tol=1e-12)


def test_a_trend_is_the_difference_of_two_means() -> None:
    rows = features(readings(40)).drop_nulls("p1_newest")
    assert_frame_equal(
        rows.select(pl.col("p1_newest") - pl.col("p1_long")), rows.select(p1_newest="p1_newest_over_long")
    )


def test_the_inputs_and_the_contributions_are_by_signal() -> None:
    inputs = life_inputs(PRESSES)
    assert inputs[:3] == ("mode_long", "mode_spread", "mode_newest_over_long")
    assert inputs[-1] == "age"
    rows = pl.DataFrame({"contributions": [dict.fromkeys(inputs, 1.0)]})
    assert rows.select(c=sum_by_signal(PRESSES, inputs))["c"].to_list() == [{"mode": 3.0, "p1": 3.0, "p11": 3.0}]


def test_a_declaration_that_contradicts_itself_is_named() -> None:
    signal, window = PRESSES.signals[0], PRESSES.windows[0]
    with pytest.raises(ContractError, match="each signal needs a name of its own"):
        Fleet(name="f", signals=(signal, signal), windows=(window,), spread_over="newest")
    with pytest.raises(ContractError, match=r"no window 'long'; known: \['newest'\]"):
        Fleet(name="f", signals=(signal,), windows=(window,), spread_over="long")
    with pytest.raises(ContractError, match="no signal 'x' for a setting"):
        Fleet(
            name="f",
            signals=(signal,),
            windows=(window,),
            spread_over="newest",
            settings=(Setting(signal="x", step=1.0),),
        )
