"""Each declared model as two assets: its training, and a day's predictions of its champion beside what came."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from city.alerts.store import alert_store
from city.alerts.watch import share
from city.contracts.registry import Domain
from city.file_lock import file_lock
from city.lake.partitions import replace_partitions
from city.lake.snapshot import Snapshot
from city.lake.tables import open_table
from city.models import examples
from city.models.exported import Exported
from city.models.history import growth, learned_from, recorded_losses, view_table
from city.models.model import Model, ModelError, models_of
from city.models.performance import (
    CALIBRATED,
    COVERS,
    LASTING,
    Verdict,
    is_young,
    performance,
    promises,
    told,
    verdicts,
)
from city.models.predictions import ID, LATENCY, LOSS, VERSION, decay, judged, predictions, schema, scores_schema
from city.models.registry import Registry, Version
from city.models.retraining import check_growth
from city.models.train import Tell, Trained, train
from city.settings import Settings, settings
from city.tables.model import DAY
from city_assets import keys
from city_assets.automation import HOURLY, when_changed
from city_assets.monitoring.alarms import UNKNOWN
from city_assets.preview import markdown
from resources.lake import LakeResource
from resources.models import ModelRegistryResource

_PREVIEW_ROWS = 5
BETTER = "better_than_naive"
REASON = "city/reason"
"""The tag of a run, and of a version, that says why it was trained."""


def model_key(model: Model) -> dg.AssetKey:
    return dg.AssetKey(["models", model.name])


def predictions_key(model: Model) -> dg.AssetKey:
    return dg.AssetKey(["predictions", model.name])


def model_assets(domain: Domain) -> list[dg.AssetsDefinition]:
    return [asset for model in models_of(domain) for asset in (_training(domain, model), _predictions(domain, model))]


def scores_key(model: Model) -> dg.AssetKey:
    return dg.AssetKey(["scores", model.name])


def score_specs(domain: Domain) -> list[dg.AssetSpec]:
    """What the stream writes of models that score its events: a topic, and the record of what was said."""
    specs = []
    for model in models_of(domain):
        if model.stream is None:
            continue
        # Not of the model: what it says may come back to it, as an anomaly that people have confirmed.
        deps = [keys.bronze(c) for c in domain.contracts if model.view.events(c)]
        says = f"What the champion of {model.name} says of each event, as it comes."
        topic = keys.topic(model.stream.topic)
        specs.append(dg.AssetSpec(topic, deps=deps, group_name=domain.name, kinds={"kafka"}, description=says))
        specs.append(
            dg.AssetSpec(
                scores_key(model),
                deps=deps,
                group_name=domain.name,
                kinds={"deltalake"},
                description=says,
                partitions_def=keys.live_days(),
            )
        )
    return specs


def train_on(
    model: Model,
    snapshot: Snapshot,
    config: Settings,
    registry: Registry,
    tell: Tell = print,
    tags: Mapping[str, str] | None = None,
) -> Trained:
    """Trains on the newest rows of the model's view (`Model.history`, `Model.most_rows`), each table at one version.
    Never two of a model at once: a second waits for the first.

    Raises ModelError where the view has not been built yet.
    """
    version = view_table(model, snapshot).version()
    rows = learned_from(model, snapshot).collect()
    truth = truth_of(model, snapshot, rows[model.view.time].min())
    reported = snapshot.table(model.label.truth) if model.label.truth else None
    versions = {} if reported is None else {"truth_version": str(reported.version())}
    folder = config.home / "models"
    folder.mkdir(parents=True, exist_ok=True)
    automatic = config.promote == "automatic"
    with file_lock(folder / model.name):
        return train(
            model,
            rows,
            registry,
            truth=truth,
            data_version=version,
            home=config.home,
            promote=automatic,
            tags={**(tags or {}), **versions},
            tell=tell,
        )


def training_shortage(model: Model, snapshot: Snapshot) -> str | None:
    """Why the model cannot be trained yet, in words that name it; None where it can.

    The Delta log is asked first. Where that says enough, the split of a training is made, from the few columns that it
    depends on and the rows that a training would read.
    """
    time = model.view.time
    needed = {time, *model.view.entities, *model.label.uses, *model.groups}
    needed.update(pl.sql_expr(model.where).meta.root_names())
    try:
        check_growth(model, growth(model, snapshot, None, settings().timezone))
        rows = examples.newest(model, learned_from(model, snapshot).select(sorted(needed)).collect())
        truth = truth_of(model, snapshot, rows[time].min())
        examples.check_parts(model, examples.labelled(model, rows, truth))
    except ModelError as error:
        return str(error)
    return None


def truth_of(model: Model, snapshot: Snapshot, begin: Any) -> pl.DataFrame | None:
    """What the table in which the model's label finds what came tells of rows from the time `begin` on (of none, for
    None); None where there is no such table, or not yet."""
    table = snapshot.table(model.label.truth) if model.label.truth else None
    if table is None:
        return None
    rows = pl.scan_delta(table)
    return (rows.head(0) if begin is None else rows.filter(model.label.tells(begin))).collect()


def predict_days(model: Model, snapshot: Snapshot, registry: Registry, days: list[date]) -> pl.DataFrame:
    """What the champion says of the days, or what was said in the stream, where it scores there; with the outcomes
    that are known. Replaces the days in the lake.

    Raises ModelError where there is no champion yet.
    """
    champion = registry.at(model.name)
    if champion is None:
        raise ModelError(f"model {model.name!r} has no champion yet: train it (models/{model.name})")
    read = {day + timedelta(days=n) for day in days for n in (0, 1)}  # outcomes of the evening come after midnight
    rows = pl.scan_delta(view_table(model, snapshot)).filter(pl.col(DAY).is_in(read)).collect()
    truth = truth_of(model, snapshot, rows[model.view.time].min())
    if model.stream is not None:
        said = snapshot.scan(f"scores/{model.name}", scores_schema(model) | {DAY: pl.Date()})
        found = judged(model, said.filter(pl.col(DAY).is_in(days)).collect(), rows, truth)
    else:
        found = predictions(model, Exported(model, registry.content(champion)), champion.number, rows, truth)
        of_row = rows.select(*model.view.entities, model.view.time, DAY)
        found = found.join(of_row, on=[*model.view.entities, model.view.time], maintain_order="left").with_columns(
            pl.lit(None, pl.String).alias(ID), pl.lit(None, pl.Float64).alias(LATENCY)
        )
    path, columns = snapshot.root / "predictions" / model.name, schema(model)
    open_table(path, columns | {DAY: pl.Date()}, [DAY], may_add=columns.keys())
    chosen = found.filter(pl.col(DAY).is_in(days)).select(*columns, DAY)
    replace_partitions(path, [DAY], chosen.lazy(), [(DAY, "in", [str(day) for day in days])])
    snapshot.release(f"predictions/{model.name}")
    return chosen


_PROMISES = {
    CALIBRATED: "Confidences are as often right as they say.",
    COVERS: "Intervals hold as many outcomes as they promise.",
    LASTING: "Losses have not grown since the champion's first.",
}


def judge_champion(
    model: Model, snapshot: Snapshot, registry: Registry, champion: Version, found: pl.DataFrame
) -> tuple[dict[str, float], list[Verdict]]:
    """The champion's metrics over predictions that were judged, of events after its training, and what it promised and
    holds."""
    trained = datetime.fromisoformat(champion.tags["trained_at"])
    mine = found.filter(pl.col(VERSION) == champion.number, pl.col(model.view.time) > trained)
    measured = performance(model, mine)
    recorded = recorded_losses(model, snapshot, champion.number, trained, settings().timezone)
    lost = None if recorded is None else decay(model, recorded, champion.number, trained)
    intervals = Exported(model, registry.content(champion)).calibration.intervals
    young = is_young(registry.versions(model.name), datetime.now(UTC))
    return measured, verdicts(model, measured, intervals.coverage if intervals else None, lost, young)


def _training(domain: Domain, model: Model) -> dg.AssetsDefinition:
    @dg.asset(
        key=model_key(model),
        deps=[keys.table(table) for table in (model.view.table.id, model.label.truth) if table],
        group_name=domain.name,
        kinds={"mlflow", "scikitlearn", "onnx"},
        description=model.means,
        check_specs=[
            dg.AssetCheckSpec(
                BETTER, asset=model_key(model), description="On the held-out rows it beats what one says without it."
            )
        ],
        metadata={"inputs": ", ".join(model.inputs), "label": model.label.says},
    )
    def fit(
        context: dg.AssetExecutionContext, lake: LakeResource, models: ModelRegistryResource
    ) -> dg.MaterializeResult:
        registry = models.registry()
        tags = {"dagster_run_id": context.run_id, REASON: context.run.tags.get(REASON, "by hand")}
        trained = train_on(model, lake.snapshot, settings(), registry, context.log.info, tags)
        scores = trained.fitted.scores
        check = dg.AssetCheckResult(
            check_name=BETTER,
            passed=scores["model"][model.measure] < scores["naive"][model.measure],
            severity=dg.AssetCheckSeverity.WARN,
            metadata={who: of[model.measure] for who, of in scores.items()},
        )
        metadata: dict[str, Any] = {
            "version": trained.version.number,
            "champion": trained.promoted,
            "why": trained.reason,
            "card": dg.MetadataValue.md(registry.card(trained.version)),
            **{f"{who}_{name}": value for who, of in scores.items() for name, value in of.items()},
        }
        return dg.MaterializeResult(metadata=metadata, check_results=[check])

    return fit


def _predictions(domain: Domain, model: Model) -> dg.AssetsDefinition:
    @dg.asset(
        key=predictions_key(model),
        deps=[keys.table(model.view.table.id), model_key(model), *([scores_key(model)] if model.stream else [])],
        group_name=domain.name,
        kinds={"deltalake", "onnx"},
        description=f"What the champion of {model.name} said, a day at a time, beside what came.",
        partitions_def=keys.live_days(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=when_changed(HOURLY),
        check_specs=[
            dg.AssetCheckSpec(name, asset=predictions_key(model), description=_PROMISES[name])
            for name in promises(model)
        ],
    )
    def predict(
        context: dg.AssetExecutionContext, lake: LakeResource, models: ModelRegistryResource
    ) -> dg.MaterializeResult:
        registry = models.registry()
        champion = registry.at(model.name)
        if champion is None:
            nothing = {UNKNOWN: "no champion yet"}
            kept = [dg.AssetCheckResult(check_name=n, passed=True, metadata=nothing) for n in promises(model)]
            return dg.MaterializeResult(metadata={"champion": "none yet"}, check_results=kept)
        days = [date.fromisoformat(key) for key in context.partition_keys]
        found = predict_days(model, lake.snapshot, registry, days)
        shown = found.tail(_PREVIEW_ROWS).drop("inputs", "output")
        known = found.filter(pl.col(LOSS).is_not_null())
        metadata: dict[str, Any] = {
            "dagster/partition_row_count": found.height,
            "with_outcome": known.height,
            "newest": dg.MetadataValue.md(markdown(shown)) if found.height else "",
        }
        if known.height:
            metadata |= known.select(pl.col(LOSS).mean().alias("mean_loss"), pl.col(VERSION).max()).row(0, named=True)
        measured, said = judge_champion(model, lake.snapshot, registry, champion, found)
        share(alert_store(settings()), f"outcomes/{model.name}", told(model.name, champion.number, measured))
        checks = [
            dg.AssetCheckResult(
                check_name=verdict.name,
                passed=verdict.passed is not False,
                severity=dg.AssetCheckSeverity.WARN,
                description=verdict.says,
                metadata={UNKNOWN: verdict.says} if verdict.passed is None else {},
            )
            for verdict in said
        ]
        return dg.MaterializeResult(metadata=metadata | measured, check_results=checks)

    return predict
