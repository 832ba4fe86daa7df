"""The online store as an asset: filled from history here, by the stream between; and compared with the tables."""

import math
from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl

from city.features.online import OnlineStore, online_store
from city.features.repository import materialize_views
from city.features.views import SEPARATOR, View, views
from city.settings import settings
from city_assets import keys
from city_assets.automation import when_changed
from resources.lake import LakeResource

ONLINE = dg.AssetKey(["features", "online"])
_HISTORY = timedelta(days=2)
_SAMPLED = 200
_TOLERANCE = 1e-6


@dg.asset(
    key=ONLINE,
    deps=[keys.table(view.table.id) for view in views().values()],
    group_name="features",
    kinds={"feast"},
    description="The newest features of each entity, for serving. A row never replaces a newer one of the stream.",
    automation_condition=when_changed(),
)
def online_features() -> dg.MaterializeResult:
    written = materialize_views(settings(), _HISTORY)
    return dg.MaterializeResult(metadata=dict(written))


def online_checks() -> list[dg.AssetChecksDefinition]:
    return [_online_check(view) for view in views().values()]


def _online_check(view: View) -> dg.AssetChecksDefinition:
    # Of the store, not of the table: in a run that builds both, it is looked at when both are new.
    @dg.asset_check(
        asset=ONLINE,
        name=f"{view.name}_as_in_table",
        additional_deps=[keys.table(view.table.id)],
        description=f"What is served of {view.name} is what the table has, for the same entity and time.",
    )
    def check(lake: LakeResource) -> dg.AssetCheckResult:
        path = lake.root / view.table.id
        offline = pl.scan_delta(str(path)) if path.exists() else None
        compared, different = compare(view, online_store(settings()), offline)
        return dg.AssetCheckResult(
            passed=not different,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={"compared": compared, "different": dg.MetadataValue.json(different[:20])},
        )

    return check


def compare(view: View, store: OnlineStore, offline: pl.LazyFrame | None) -> tuple[int, list[dict[str, Any]]]:
    """How many online rows of a sample have a table row of the same entity and time, and where the two differ.

    The window that is open changes with each event, and so does a table's last one: neither is compared.
    """
    keys_online = store.keys(view.name, _SAMPLED)
    if offline is None or not keys_online:
        return 0, []
    held = {key: row for key, row in zip(keys_online, store.read(view.name, keys_online), strict=True) if row}
    key = pl.concat_str([pl.col(name).cast(pl.String) for name in view.entities], separator=SEPARATOR)
    newest = offline.select(pl.col(view.time).max()).collect().item()
    of_sample = offline.filter(key.is_in(list(held)), pl.col(view.time) < newest - timedelta(minutes=1))
    rows = of_sample.with_columns(_key=key, _at=pl.col(view.time).dt.epoch("us")).collect()
    compared, different = 0, []
    for row in rows.iter_rows(named=True):
        online = held[row["_key"]]
        if online.at != row["_at"]:
            continue
        compared += 1
        for name, column in view.features.items():
            if column.kind != "timestamp" and not _same(row[name], online.features.get(name)):
                different.append(
                    {"entity": row["_key"], "feature": name, "offline": row[name], "online": online.features.get(name)}
                )
    return compared, different


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float | int):
        return math.isclose(left, right, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(left == right)
