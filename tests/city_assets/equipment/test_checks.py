"""Kinds of machines that nobody gave limits are told."""

import dagster as dg
import narwhals as nw
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from city.lake.reference import commission
from city.settings import Settings
from city.tables.schema import schema
from city_assets.equipment.checks import kinds_without_limits, machines_have_limits
from city_assets.equipment.limits import DEFAULT_LIMITS, default_type
from city_assets.equipment.tables import MACHINE_TYPES
from city_assets.equipment.transforms import with_limits
from resources.lake import LakeResource
from simulators.commission import fill_tables


def test_a_kind_without_a_row_that_can_be_used_is_named_with_the_fix() -> None:
    cycles = default_type() | {"kind": "turbofan", "life_unit": "cycles"}
    types = [default_type() | {"kind": "pump"}, cycles, default_type() | {"kind": "fan", "life_cap": 0.0}]
    machines = pl.DataFrame({"kind": ["pump", "press", "turbofan", "fan", "press"]})
    reasons = kinds_without_limits(machines, pl.DataFrame(types, schema=schema(MACHINE_TYPES)))
    assert list(reasons) == ["fan", "press", "turbofan"]
    assert "no row in machine_types" in reasons["press"]
    assert reasons["turbofan"] == "hours_per_cycle is empty; it must be positive, because life_unit is cycles"
    assert reasons["fan"] == "life_cap is 0; it must be positive"


@pytest.mark.parametrize("unit", ["weeks", "", "H", None])
def test_an_unknown_unit_is_named_where_the_default_is_used(unit: str | None) -> None:
    types = pl.DataFrame([TYPE | {"life_unit": unit}, default_type()], schema=schema(MACHINE_TYPES))
    (reason,) = kinds_without_limits(PRESS, types).values()
    assert reason == f"life_unit is {'empty' if unit is None else repr(unit)}; it must be one of h, d, cycles"
    assert caps(types) == [DEFAULT_LIMITS.cap]


TYPE = {"kind": "press", "life_cap": 5.0, "order_below": 4.0, "replace_below": 3.0, "stop_below": 2.0}
PRESS = pl.DataFrame({"machine_id": ["m"], "kind": ["press"]})


def caps(types: pl.DataFrame) -> list[float]:
    frames = pl.DataFrame({"machine_id": ["m"]}), PRESS, types
    readings, machines, rows = (nw.from_native(frame.lazy()) for frame in frames)
    return with_limits(readings, machines, rows).to_native().collect()["life_cap_hours"].to_list()


@given(
    unit=st.sampled_from(["h", "d", "cycles", "weeks", None]),
    cap=st.sampled_from([5.0, 0.0, -1.0, None]),
    hours=st.sampled_from([3.0, 0.0, None]),
)
def test_the_check_names_the_kinds_that_get_the_limits_of_the_default(
    unit: str | None, cap: float | None, hours: float | None
) -> None:
    row = TYPE | {"life_unit": unit, "life_cap": cap, "hours_per_cycle": hours}
    types = pl.DataFrame([row, default_type()], schema=schema(MACHINE_TYPES))
    assert (caps(types) == [DEFAULT_LIMITS.cap]) == ("press" in kinds_without_limits(PRESS, types))


def test_a_default_that_cannot_be_used_is_named_where_it_is_needed() -> None:
    default = default_type() | {"life_unit": "weeks"}
    types = pl.DataFrame([default], schema=schema(MACHINE_TYPES))
    assert list(kinds_without_limits(PRESS, types)) == ["press", "default"]
    with_row = pl.DataFrame([default, TYPE | {"life_unit": "h"}], schema=schema(MACHINE_TYPES))
    assert kinds_without_limits(PRESS, with_row) == {}


def test_a_kind_that_is_not_learned_from_is_named_with_the_fix(config: Settings) -> None:
    presses = [{"machine_id": f"press_{n}", "kind": "press", "location": "hall", "criticality": 1} for n in range(2)]
    commission(config.lake, "machines", presses)
    commission(config.lake, "machine_types", [TYPE | {"life_unit": "d", "life_cap": 30.0}, default_type()])
    result = machines_have_limits(LakeResource(path=str(config.lake)))
    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    assert result.metadata["kinds"].value == {
        "press": "not learned from: a life_cap of 720 h needs 270 days of history, and 13 days are kept; "
        "declare a lower life_cap, or a longer history and more rows of the model machine_life"
    }


def test_the_fleet_of_the_simulator_passes_and_another_machine_warns(config: Settings) -> None:
    press = {"machine_id": "press_1", "kind": "press", "location": "hall", "criticality": 1}
    commission(config.lake, "machines", [press])
    lake = LakeResource(path=str(config.lake))
    failed = machines_have_limits(lake)
    assert isinstance(failed, dg.AssetCheckResult)
    assert not failed.passed
    assert failed.severity == dg.AssetCheckSeverity.WARN


def test_the_simulator_fills_the_types_of_its_fleet(config: Settings) -> None:
    fill_tables(config.lake, 0)
    passed = machines_have_limits(LakeResource(path=str(config.lake)))
    assert isinstance(passed, dg.AssetCheckResult)
    assert passed.passed
