"""The online feature store as an asset, and the checks that compare it with the feature tables.

The asset fills the store from history. The stream updates it between two builds.
"""

import math
from collections.abc import Sequence
from datetime import timedelta

import dagster as dg
import polars as pl

from city.features.online import OnlineStore, online_store
from city.features.repository import materialize_views
from city.features.views import SEPARATOR, View, views
from city.lake.snapshot import Snapshot
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
    description="The newest features of each entity, for serving. A row never replaces a newer row of the stream.",
    automation_condition=when_changed(),
)
def online_features() -> dg.MaterializeResult:
    """Writes the newest rows of each feature view of the last two days to the online store."""
    row_counts = materialize_views(settings(), _HISTORY)
    return dg.MaterializeResult(metadata=dict(row_counts))


def online_checks() -> list[dg.AssetChecksDefinition]:
    """Returns one check per feature view, which compares the online store with the view's table."""
    return [_online_check(view) for view in views().values()]


def _online_check(view: View) -> dg.AssetChecksDefinition:
    # The check belongs to the store, not to the table: in a run that builds both, it runs after both.
    @dg.asset_check(
        asset=ONLINE,
        name=f"{view.name}_as_in_table",
        additional_deps=[keys.table(view.table.id)],
        description=f"The served features of {view.name} equal the table's, for the same entity and time.",
    )
    def check(lake: LakeResource) -> dg.AssetCheckResult:
        offline = Snapshot(lake.root).newest_days(view.table.id, view.time, _HISTORY)
        compared, different = compare(view, online_store(settings()), offline)
        return dg.AssetCheckResult(
            passed=not different,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={"compared": compared, "different": dg.MetadataValue.json(different[:20])},
        )

    return check


def compare(view: View, store: OnlineStore, offline: Sequence[pl.LazyFrame]) -> tuple[int, list[dict[str, object]]]:
    """Compares a sample of online rows with the table rows of the same entity and time.

    `offline` are the table's rows by day, the newest last. They are read a day at a time, and only the rows of the
    sample, because a day of a view can have half a million rows. The open window changes with each event, and so does
    the last window of a table. Neither is compared.

    Returns the number of rows that were compared, and one entry per differing feature (`entity`, `feature`, `offline`,
    `online`).
    """
    online_keys = store.keys(view.name, _SAMPLED)
    if not offline or not online_keys:
        return 0, []
    online_rows = {key: row for key, row in zip(online_keys, store.read(view.name, online_keys), strict=True) if row}
    key = pl.concat_str([pl.col(name).cast(pl.String) for name in view.entities], separator=SEPARATOR)
    times, at = [row.at for row in online_rows.values()], pl.col(view.time).dt.epoch("us")
    newest = offline[-1].select(pl.col(view.time).max()).collect().item()
    is_sampled = at.is_in(times) & key.is_in(list(online_rows))
    ended = pl.col(view.time) < newest - timedelta(minutes=1)
    samples = [rows.filter(ended, is_sampled).with_columns(_key=key, _at=at) for rows in offline]
    compared, different = 0, list[dict[str, object]]()
    for row in (row for sample in samples for row in sample.collect(engine="streaming").iter_rows(named=True)):
        online = online_rows[row["_key"]]
        if online.at != row["_at"]:
            continue
        compared += 1
        for name, column in view.features.items():
            if column.kind != "timestamp" and not _values_match(row[name], online.features.get(name)):
                different.append(
                    {"entity": row["_key"], "feature": name, "offline": row[name], "online": online.features.get(name)}
                )
    return compared, different


def _values_match(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float | int):
        return math.isclose(left, right, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(left == right)
