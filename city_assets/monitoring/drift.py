"""Drift of the feature views that models look at: the last day against a pinned one, hour for hour."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from deltalake import write_deltalake

from city.drift import Monitor
from city.drift.comparisons import SCHEMA, TABLE, newest_comparisons
from city.drift.reference import SPAN, References, comparable, whole
from city.drift.report import page
from city.features.views import View, view_of
from city.lake.snapshot import Snapshot
from city.lake.tables import open_table
from city.models.examples import inputs
from city.models.exported import Exported
from city.models.history import view_table
from city.models.model import Model, models
from city.models.predictions import PREDICTION, answers
from city.models.registry import Registry
from city.settings import Settings, settings
from city.tables.schema import schema
from city.tables.slices import HOUR
from city_assets import keys
from city_assets.automation import HOURLY, when_changed
from city_assets.preview import markdown
from resources.lake import LakeResource
from resources.models import ModelRegistryResource

STABLE = "stable"
# What the calendar says changes by the day, and is known beforehand.
_CLOCK = (HOUR, "weekday", "holiday", "rush_hour")


def references(config: Settings) -> References:
    return References(config.home / "drift" / "reference")


def watched() -> dict[str, list[Model]]:
    """The views that models look at, with their models."""
    found: dict[str, list[Model]] = {}
    for model in models().values():
        found.setdefault(model.features, []).append(model)
    return found


def drift_assets() -> list[dg.AssetsDefinition]:
    return [_asset(view_of(name), of) for name, of in watched().items()]


def pin(view: View, of: list[Model], lake: Path, config: Settings) -> int:
    """Makes the newest day the reference. Gives its rows. Raises ModelError where the view has not been built."""
    day = _newest_day(view, of, lake)
    references(config).update_reference(view.name, day)
    return day.height


def measure(
    view: View, of: list[Model], lake: Path, config: Settings, registry: Registry, now: datetime
) -> tuple[pl.DataFrame, str] | None:
    """The comparison of the newest day with the reference, and its page; None where no reference was pinned yet (it
    is, once there is a whole day). The champions' answers are compared like features."""
    current = _newest_day(view, of, lake)
    pinned = references(config)
    reference = pinned.get(view.name)
    if reference is None:
        if whole(current, view.time):
            pinned.update_reference(view.name, current)
        return None
    both = comparable(reference, current, HOUR)
    if not (both[0].height and both[1].height):
        return None
    features = sorted({name for model in of for name in model.inputs} - {*_CLOCK})
    champions = [(m, Exported(m, registry.content(v))) for m in of if (v := registry.at(m.name)) is not None]
    then, current = (frame.select(*features, *_answers(champions, frame)) for frame in both)
    found = Monitor(then).compare(current)
    html = page(view.name, found, then, current, now)
    return found.with_columns(view=pl.lit(view.name), at=pl.lit(now)).select(
        pl.col(name).cast(kind) for name, kind in SCHEMA.items()
    ), html


def _newest_day(view: View, of: list[Model], lake: Path) -> pl.DataFrame:
    snapshot = Snapshot(lake)
    view_table(of[0], snapshot)
    rows = snapshot.newest(view.table.id, view.time, SPAN)
    return pl.DataFrame(schema=schema(view.table)) if rows is None else rows.collect()


def _answers(champions: list[tuple[Model, Exported]], frame: pl.DataFrame) -> list[pl.Series]:
    found = []
    for model, champion in champions:
        said = champion.predict(inputs(model, frame))
        values = answers(model, champion.calibration, said)[PREDICTION]
        found.append(
            values.cast(pl.Float64 if model.kind == "regression" else pl.String).alias(f"{model.name} {PREDICTION}")
        )
    return found


def drifted(snapshot: Snapshot, view: str) -> tuple[str, ...]:
    """The features of a view that its newest comparison found drifted, where that is not much older than others'."""
    found = newest_comparisons(snapshot).filter(pl.col("view") == view, "drifted")
    return tuple(sorted(found["feature"].unique()))


def _asset(view: View, of: list[Model]) -> dg.AssetsDefinition:
    key = dg.AssetKey(["monitoring", f"{view.name}_drift"])

    @dg.asset(
        key=key,
        deps=[keys.table(view.table.id)],
        group_name="monitoring",
        kinds={"scipy"},
        description=f"Whether {view.name}, and what models say of it, is as it was in the pinned day.",
        automation_condition=when_changed(HOURLY),
        check_specs=[dg.AssetCheckSpec(STABLE, asset=key, description="Nothing drifted beyond chance and by enough.")],
    )
    def compare(lake: LakeResource, models: ModelRegistryResource) -> dg.MaterializeResult:
        config, now = settings(), datetime.now(UTC)
        found = measure(view, of, lake.root, config, models.registry(), now)
        if found is None:
            passed = dg.AssetCheckResult(check_name=STABLE, passed=True, metadata={"reference": "not pinned yet"})
            return dg.MaterializeResult(metadata={"reference": "not pinned yet"}, check_results=[passed])
        rows, html = found
        open_table(lake.root / TABLE, SCHEMA)
        write_deltalake(str(lake.root / TABLE), rows, mode="append")
        file = config.home / "drift" / f"{view.name}.html"
        file.write_text(html)
        wrong = rows.filter("drifted")
        check = dg.AssetCheckResult(
            check_name=STABLE,
            passed=not wrong.height,
            severity=dg.AssetCheckSeverity.WARN,
            description=", ".join(wrong["feature"].unique().sort()) or None,
        )
        table = wrong.drop("view", "at").sort("effect", descending=True)
        metadata: dict[str, Any] = {
            "page": dg.MetadataValue.path(str(file)),
            "drifted": dg.MetadataValue.md(markdown(table) if wrong.height else "nothing"),
            "pinned": str(references(config).pinned_at(view.name)),
        }
        return dg.MaterializeResult(metadata=metadata, check_results=[check])

    return compare
