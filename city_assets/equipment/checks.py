"""The check that each machine's kind has limits of its own."""

import dagster as dg
import polars as pl

from city.lake.reference import read
from city_assets import keys
from city_assets.equipment.limits import DEFAULT_KIND
from city_assets.equipment.tables import MACHINE_FEATURES, MACHINE_TYPES, MACHINES
from resources.lake import LakeResource


def kinds_without_limits(machines: pl.DataFrame, types: pl.DataFrame) -> dict[str, str]:
    """Returns the kinds of machines that get the default's limits, with the reason and the fix.

    A kind's row is used as `transforms.with_limits` uses it.
    """
    rows = {row["kind"]: row for row in types.iter_rows(named=True)}
    reasons: dict[str, str] = {}
    for kind in machines["kind"].unique().sort():
        row = rows.get(kind)
        if row is None:
            reasons[kind] = f"no row in {MACHINE_TYPES.name}: its machines have the limits of {DEFAULT_KIND!r}; add one"
        elif not row["life_cap"] > 0:
            reasons[kind] = f"life_cap is {row['life_cap']:g}; it must be positive"
        elif row["life_unit"] == "cycles" and not (row["hours_per_cycle"] or 0) > 0:
            reasons[kind] = "life_unit is cycles, so hours_per_cycle must be positive"
    return reasons


@dg.asset_check(
    asset=keys.table(MACHINE_FEATURES.id),
    description=f"Each machine's kind has a row in {MACHINE_TYPES.id}, by which its life and actions are judged.",
)
def machines_have_limits(lake: LakeResource) -> dg.AssetCheckResult:
    """Warns of kinds of machines that get the default's limits."""
    reasons = kinds_without_limits(read(lake.root, MACHINES), read(lake.root, MACHINE_TYPES))
    return dg.AssetCheckResult(
        passed=not reasons, severity=dg.AssetCheckSeverity.WARN, metadata={"kinds": dg.MetadataValue.json(reasons)}
    )
