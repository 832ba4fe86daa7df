"""Drift of the feature views that models use: the newest day compared with a pinned reference day, hour by hour."""

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
from deltalake import write_deltalake

from city.drift import Monitor
from city.drift.comparisons import SCHEMA, TABLE, newest_comparisons
from city.drift.reference import comparable, covers_span
from city.drift.report import page
from city.features.views import View, view_of
from city.lake.snapshot import Snapshot
from city.lake.tables import open_table
from city.models.compatible import takes_inputs
from city.models.examples import inputs
from city.models.exported import Exported
from city.models.model import Model
from city.models.predictions import PREDICTION, answers
from city.models.registry import Registry
from city.settings import Settings, settings
from city.stack.history_plan import load_plan
from city.tables.registry import is_live
from city.tables.slices import HOUR
from city_assets import keys
from city_assets.automation import HOURLY, when_changed
from city_assets.monitoring.references import load_newest, models_by_view, references, with_hour
from city_assets.preview import Metadata, markdown
from resources.lake import LakeResource
from resources.models import ModelRegistryResource

STABLE = "stable"
"""The name of the check that a view has not drifted."""
_MOSTLY = 0.5
"""An input that is missing in a larger share of the rows is not known yet."""
# The calendar's columns change by the day, and their values are known beforehand.
_CLOCK = (HOUR, "hour_of_day", "weekday", "is_weekend", "holiday", "rush_hour")


def drift_assets() -> list[dg.AssetsDefinition]:
    """Returns one drift asset for each feature view that models use."""
    return [_build_asset(view_of(name), view_models) for name, view_models in models_by_view().items()]


def measure(
    view: View, view_models: list[Model], lake: Path, config: Settings, registry: Registry, now: datetime
) -> tuple[pl.DataFrame, str] | None:
    """Compares the view's newest day with the reference day. The champions' predictions are compared like features.

    Pins the newest day if there is no reference yet, or one that lacks inputs of the models, and the day is whole (see
    `load_newest` for which rows count).
    Returns the comparison and its HTML page, or None if there was no reference, or no comparable hour, or not yet a day
    of live rows after the history of a new city.

    Raises ModelError if the view has not been built.
    """
    current = load_newest(view, view_models, lake, config)
    stored_references = references(config)
    reference = stored_references.get(view.name)
    model_inputs = {name for model in view_models for name in model.inputs}
    if reference is None or _lacks_inputs(reference, current, model_inputs):
        if covers_span(current, view.time):
            stored_references.update_reference(view.name, current)
        return None
    # A city's first day is in part its history: neither its weekday nor a holiday in it would be drift of live rows.
    plan = load_plan(config)
    if plan is not None and plan.days:
        current = current.filter(pl.col(view.time) >= plan.end)
        if not covers_span(current, view.time):
            return None
    comparable_days = comparable(with_hour(reference, view, config), current, HOUR)
    if not (comparable_days[0].height and comparable_days[1].height):
        return None
    features = sorted(model_inputs - {*_CLOCK})
    champions = [
        (model, Exported(model, registry.content(version)))
        for model in view_models
        if (version := registry.at(model.name)) is not None and takes_inputs(model, version, registry)
    ]
    reference_values, current = (
        frame.select(*features, *_prediction_columns(champions, frame)) for frame in comparable_days
    )
    comparison = Monitor(reference_values).compare(current)
    html = page(view.name, comparison, reference_values, current, now)
    return comparison.with_columns(view=pl.lit(view.name), at=pl.lit(now)).select(
        pl.col(name).cast(kind) for name, kind in SCHEMA.items()
    ), html


def _lacks_inputs(reference: pl.DataFrame, current: pl.DataFrame, names: Collection[str]) -> bool:
    """Returns whether the reference lacks an input that the current rows have: in most of its rows, or altogether.

    An earlier release had fewer features, and on its first day a city has none that it learns from the days before.
    """
    for name in names:
        if name not in reference.columns:
            return True
        before, now = (frame[name].null_count() / max(frame.height, 1) for frame in (reference, current))
        if before > _MOSTLY > now:
            return True
    return False


def _prediction_columns(champions: list[tuple[Model, Exported]], frame: pl.DataFrame) -> list[pl.Series]:
    columns = []
    for model, champion in champions:
        output = champion.predict(inputs(model, frame))
        values = answers(model, champion.calibration, output, frame)[PREDICTION]
        columns.append(
            values.cast(pl.Float64 if model.kind == "regression" else pl.String).alias(f"{model.name} {PREDICTION}")
        )
    return columns


def drifted_features(snapshot: Snapshot, view: str) -> tuple[str, ...]:
    """Returns the features of a view that have drifted, by its newest comparison.

    A comparison that is much older than those of other views is ignored.
    """
    comparisons = newest_comparisons(snapshot).filter(pl.col("view") == view, "drifted")
    return tuple(sorted(comparisons["feature"].unique()))


def _build_asset(view: View, view_models: list[Model]) -> dg.AssetsDefinition:
    key = dg.AssetKey(["monitoring", f"{view.name}_drift"])

    @dg.asset(
        key=key,
        deps=[keys.table(view.table.id)],
        group_name="monitoring",
        kinds={"scipy"},
        description=f"Whether {view.name} and the models' predictions from it are distributed as on the pinned day.",
        automation_condition=when_changed(HOURLY) if is_live(view.table) else None,
        check_specs=[
            dg.AssetCheckSpec(STABLE, asset=key, description="No feature drifted both significantly and by enough.")
        ],
    )
    def compare(lake: LakeResource, models: ModelRegistryResource) -> dg.MaterializeResult:
        config, now = settings(), datetime.now(UTC)
        measured = measure(view, view_models, lake.root, config, models.registry(), now)
        if measured is None:
            state = {"comparison": "not yet: it needs a reference and a day of live rows"}
            passed = dg.AssetCheckResult(check_name=STABLE, passed=True, metadata=state)
            return dg.MaterializeResult(metadata=state, check_results=[passed])
        rows, html = measured
        open_table(lake.root / TABLE, SCHEMA)
        write_deltalake(str(lake.root / TABLE), rows, mode="append")
        file = config.home / "drift" / f"{view.name}.html"
        file.write_text(html)
        drifted_rows = rows.filter("drifted")
        check = dg.AssetCheckResult(
            check_name=STABLE,
            passed=not drifted_rows.height,
            severity=dg.AssetCheckSeverity.WARN,
            description=", ".join(drifted_rows["feature"].unique().sort()) or None,
        )
        table = drifted_rows.drop("view", "at").sort("effect", descending=True)
        metadata: Metadata = {
            "page": dg.MetadataValue.path(str(file)),
            "drifted": dg.MetadataValue.md(markdown(table) if drifted_rows.height else "nothing"),
            "pinned": str(references(config).pinned_at(view.name)),
        }
        return dg.MaterializeResult(metadata=metadata, check_results=[check])

    return compare
