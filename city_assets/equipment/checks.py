"""The check that each machine's kind has limits of its own."""

from datetime import timedelta

import dagster as dg
import narwhals as nw
import polars as pl

from city.lake.reference import read
from city_assets import keys
from city_assets.equipment.life import learning_shortage
from city_assets.equipment.limits import DEFAULT_KIND
from city_assets.equipment.models import LIFE
from city_assets.equipment.tables import MACHINE_FEATURES, MACHINE_TYPES, MACHINES
from city_assets.equipment.transforms import type_faults, with_limits
from resources.lake import LakeResource


def kinds_without_limits(machines: pl.DataFrame, types: pl.DataFrame) -> dict[str, str]:
    """Returns the kinds of machines that get the default's limits, with the reason and the fix.

    A row that `transforms.with_limits` cannot use is no row. The row of the default is named too, where it is needed.
    """
    faults: dict[str, str] = {}
    for fault in reversed(type_faults()):
        wrong = nw.from_native(types).filter(fault.is_wrong).select("kind", fault.column)
        faults |= {kind: f"{fault.column} is {_text(value)}; it {fault.mend}" for kind, value in wrong.iter_rows()}
    unknown = f"no row in {MACHINE_TYPES.name}: its machines have the limits of {DEFAULT_KIND!r}; add one"
    rows = set(types["kind"])
    kinds = machines["kind"].unique().sort().to_list()
    reasons = {kind: faults.get(kind, unknown) for kind in kinds if kind in faults or kind not in rows}
    return reasons | ({DEFAULT_KIND: faults[DEFAULT_KIND]} if reasons and DEFAULT_KIND in faults else {})


def kinds_not_learned_from(machines: pl.DataFrame, types: pl.DataFrame) -> dict[str, str]:
    """Returns the kinds of machines whose cap is too long for what is learned from, with the reason and the fix.

    That is the history that is kept, or the time in which so many machines have the model's `most_rows`.
    """
    learned = LIFE.most_rows * timedelta(minutes=1) / max(machines.height, 1)
    frames = (nw.from_native(frame.lazy()) for frame in (machines.select("machine_id"), machines, types))
    limits = (
        with_limits(*frames)
        .to_native()
        .select("machine_id", "life_cap_hours", reason=learning_shortage(min(LIFE.history, learned)))
    )
    kinds = limits.join(machines.lazy(), on="machine_id").drop_nulls("reason").select("kind", "reason").unique()
    fix = f"declare a lower life_cap, or a longer history and more rows of the model {LIFE.name}"
    return {kind: f"{reason}; {fix}" for kind, reason in kinds.sort("kind").collect().iter_rows()}


def _text(value: object) -> str:
    return "empty" if value is None else f"{value:g}" if isinstance(value, float) else repr(value)


@dg.asset_check(
    asset=keys.table(MACHINE_FEATURES.id),
    description=f"Each machine's kind has a row in {MACHINE_TYPES.id}, by which its life and actions are judged, with "
    "a life_cap that the model learns from.",
)
def machines_have_limits(lake: LakeResource) -> dg.AssetCheckResult:
    """Warns of kinds of machines that get the default's limits, and of those that are not learned from."""
    machines, types = read(lake.root, MACHINES), read(lake.root, MACHINE_TYPES)
    reasons = kinds_not_learned_from(machines, types) | kinds_without_limits(machines, types)
    return dg.AssetCheckResult(
        passed=not reasons, severity=dg.AssetCheckSeverity.WARN, metadata={"kinds": dg.MetadataValue.json(reasons)}
    )
