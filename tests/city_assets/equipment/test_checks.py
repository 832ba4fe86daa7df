"""Kinds of machines that nobody gave limits are told."""

import dagster as dg
import polars as pl

from city.lake.reference import commission
from city.settings import Settings
from city.tables.schema import schema
from city_assets.equipment.checks import kinds_without_limits, machines_have_limits
from city_assets.equipment.limits import default_type
from city_assets.equipment.tables import MACHINE_TYPES
from resources.lake import LakeResource
from simulators.commission import fill_tables


def test_a_kind_without_a_row_that_can_be_used_is_named_with_the_fix() -> None:
    cycles = default_type() | {"kind": "turbofan", "life_unit": "cycles"}
    types = [default_type() | {"kind": "pump"}, cycles, default_type() | {"kind": "fan", "life_cap": 0.0}]
    machines = pl.DataFrame({"kind": ["pump", "press", "turbofan", "fan", "press"]})
    reasons = kinds_without_limits(machines, pl.DataFrame(types, schema=schema(MACHINE_TYPES)))
    assert list(reasons) == ["fan", "press", "turbofan"]
    assert "no row in machine_types" in reasons["press"]
    assert "hours_per_cycle must be positive" in reasons["turbofan"]
    assert "life_cap is 0" in reasons["fan"]


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
