"""Two assets for each declared model: its training, and its champion's daily predictions with the outcomes."""

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
from city_assets.monitoring.checks import UNKNOWN
from city_assets.preview import markdown
from resources.lake import LakeResource
from resources.models import ModelRegistryResource

_PREVIEW_ROWS = 5
BETTER = "better_than_naive"
"""The name of the check that compares a trained model with the naive prediction."""
REASON = "city/reason"
"""The tag of a run, and of a version, that says why it was trained."""


def model_key(model: Model) -> dg.AssetKey:
    """Returns the key of a model's training asset."""
    return dg.AssetKey(["models", model.name])


def predictions_key(model: Model) -> dg.AssetKey:
    """Returns the key of a model's predictions asset."""
    return dg.AssetKey(["predictions", model.name])


def model_assets(domain: Domain) -> list[dg.AssetsDefinition]:
    """Returns the training and the predictions asset of each model of a domain."""
    return [
        asset
        for model in models_of(domain)
        for asset in (_training_asset(domain, model), _predictions_asset(domain, model))
    ]


def scores_key(model: Model) -> dg.AssetKey:
    """Returns the key of the table of what a model predicted in the stream."""
    return dg.AssetKey(["scores", model.name])


def score_specs(domain: Domain) -> list[dg.AssetSpec]:
    """Returns the specs of what the stream writes for models that score events: a topic and a table per model."""
    specs = []
    for model in models_of(domain):
        if model.stream is None:
            continue
        # The model is no dependency: its predictions may come back to it, as anomalies that people have confirmed.
        deps = [keys.bronze(c) for c in domain.contracts if model.view.events(c)]
        description = f"The prediction of the champion of {model.name} for each event, made in the stream."
        topic = keys.topic(model.stream.topic)
        specs.append(dg.AssetSpec(topic, deps=deps, group_name=domain.name, kinds={"kafka"}, description=description))
        specs.append(
            dg.AssetSpec(
                scores_key(model),
                deps=deps,
                group_name=domain.name,
                kinds={"deltalake"},
                description=description,
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
    """Trains a model on the newest rows of its view, with each table read at one version.

    `Model.history` and `Model.most_rows` limit the rows. A model has at most one training at a time: a second one waits
    for the first. `tell` is given the progress as text, `tags` go to the run and the version in MLflow.

    Raises ModelError if the view has not been built yet.
    """
    version = view_table(model, snapshot).version()
    rows = learned_from(model, snapshot).collect()
    truth = read_truth(model, snapshot, rows[model.view.time].min())
    truth_table = snapshot.table(model.label.truth) if model.label.truth else None
    versions = {} if truth_table is None else {"truth_version": str(truth_table.version())}
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
    """Returns why the model cannot be trained yet, as a text that names it, or None if it can be trained.

    Reads the Delta log first. If the view has grown enough, makes the split of a training, from the few columns that
    the split depends on and the rows that a training would read.
    """
    time = model.view.time
    needed = {time, *model.view.entities, *model.label.uses, *model.groups}
    needed.update(pl.sql_expr(model.where).meta.root_names())
    try:
        check_growth(model, growth(model, snapshot, None, settings().timezone))
        rows = examples.newest(model, learned_from(model, snapshot).select(sorted(needed)).collect())
        truth = read_truth(model, snapshot, rows[time].min())
        examples.check_parts(model, examples.labelled(model, rows, truth))
    except ModelError as error:
        return str(error)
    return None


def read_truth(model: Model, snapshot: Snapshot, begin: Any) -> pl.DataFrame | None:
    """Reads the truth that the model's label needs for view rows from the time `begin` on.

    The truth is the table `model.label.truth`, which holds the outcomes. Returns no rows if `begin` is None. Returns
    None if the label has no truth table, or if the table does not exist yet.
    """
    table = snapshot.table(model.label.truth) if model.label.truth else None
    if table is None:
        return None
    rows = pl.scan_delta(table)
    return (rows.head(0) if begin is None else rows.filter(model.label.tells(begin))).collect()


def predict_days(model: Model, snapshot: Snapshot, registry: Registry, days: list[date]) -> pl.DataFrame:
    """Records the champion's predictions of the local days, with the outcomes that are known so far.

    Predicts from the view's rows. For a model that scores in the stream, takes the recorded scores instead. Replaces
    the days in `predictions/<model>`, and returns their rows.

    Raises ModelError if there is no champion yet.
    """
    champion = registry.at(model.name)
    if champion is None:
        raise ModelError(f"model {model.name!r} has no champion yet: train it (models/{model.name})")
    days_read = {day + timedelta(days=n) for day in days for n in (0, 1)}  # outcomes of an evening follow midnight
    rows = pl.scan_delta(view_table(model, snapshot)).filter(pl.col(DAY).is_in(days_read)).collect()
    truth = read_truth(model, snapshot, rows[model.view.time].min())
    if model.stream is not None:
        scored = snapshot.scan(f"scores/{model.name}", scores_schema(model) | {DAY: pl.Date()})
        predicted = judged(model, scored.filter(pl.col(DAY).is_in(days)).collect(), rows, truth)
    else:
        predicted = predictions(model, Exported(model, registry.content(champion)), champion.number, rows, truth)
        row_days = rows.select(*model.view.entities, model.view.time, DAY)
        predicted = predicted.join(
            row_days, on=[*model.view.entities, model.view.time], maintain_order="left"
        ).with_columns(pl.lit(None, pl.String).alias(ID), pl.lit(None, pl.Float64).alias(LATENCY))
    path, columns = snapshot.root / "predictions" / model.name, schema(model)
    open_table(path, columns | {DAY: pl.Date()}, [DAY], may_add=columns.keys())
    chosen = predicted.filter(pl.col(DAY).is_in(days)).select(*columns, DAY)
    replace_partitions(path, [DAY], chosen.lazy(), [(DAY, "in", [str(day) for day in days])])
    snapshot.release(f"predictions/{model.name}")
    return chosen


_PROMISES = {
    CALIBRATED: "Predictions are right as often as their confidence says.",
    COVERS: "Prediction intervals contain as many outcomes as they promise.",
    LASTING: "The losses have not grown since the champion's first ones.",
}


def judge_champion(
    model: Model, snapshot: Snapshot, registry: Registry, champion: Version, judged_rows: pl.DataFrame
) -> tuple[dict[str, float], list[Verdict]]:
    """Judges the champion by its predictions of events after its training.

    `judged_rows` are predictions with their outcomes, as `predict_days` returns them. Returns the metrics, and one
    verdict per promise of the model.
    """
    trained = datetime.fromisoformat(champion.tags["trained_at"])
    champion_rows = judged_rows.filter(pl.col(VERSION) == champion.number, pl.col(model.view.time) > trained)
    metrics = performance(model, champion_rows)
    losses = recorded_losses(model, snapshot, champion.number, trained, settings().timezone)
    loss_decay = None if losses is None else decay(model, losses, champion.number, trained)
    intervals = Exported(model, registry.content(champion)).calibration.intervals
    young = is_young(registry.versions(model.name), datetime.now(UTC))
    return metrics, verdicts(model, metrics, intervals.coverage if intervals else None, loss_decay, young)


def check_better(model: Model, scores: Mapping[str, Mapping[str, float]], young: bool) -> dg.AssetCheckResult:
    """Checks that the model beats the naive prediction, by its measure in `scores` (see Fitted).

    A young model may fail to: it has learned from minutes, and one outlier among the held-out rows decides. That is
    unknown rather than failed, as a young model's promises are.
    """
    is_better = scores["model"][model.measure] < scores["naive"][model.measure]
    metadata: dict[str, Any] = {predictor: measures[model.measure] for predictor, measures in scores.items()}
    if young and not is_better:
        metadata[UNKNOWN] = "not better yet, and trained first less than a day ago"
    return dg.AssetCheckResult(
        check_name=BETTER, passed=is_better or young, severity=dg.AssetCheckSeverity.WARN, metadata=metadata
    )


def _training_asset(domain: Domain, model: Model) -> dg.AssetsDefinition:
    @dg.asset(
        key=model_key(model),
        deps=[keys.table(table) for table in (model.view.table.id, model.label.truth) if table],
        group_name=domain.name,
        kinds={"mlflow", "scikitlearn", "onnx"},
        description=model.means,
        check_specs=[
            dg.AssetCheckSpec(
                BETTER, asset=model_key(model), description="On the held-out rows the model beats the naive prediction."
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
        check = check_better(model, scores, is_young(registry.versions(model.name), datetime.now(UTC)))
        metadata: dict[str, Any] = {
            "version": trained.version.number,
            "champion": trained.promoted,
            "why": trained.reason,
            "card": dg.MetadataValue.md(registry.card(trained.version)),
            **{
                f"{predictor}_{name}": value
                for predictor, measures in scores.items()
                for name, value in measures.items()
            },
        }
        return dg.MaterializeResult(metadata=metadata, check_results=[check])

    return fit


def _predictions_asset(domain: Domain, model: Model) -> dg.AssetsDefinition:
    @dg.asset(
        key=predictions_key(model),
        deps=[keys.table(model.view.table.id), model_key(model), *([scores_key(model)] if model.stream else [])],
        group_name=domain.name,
        kinds={"deltalake", "onnx"},
        description=f"The daily predictions of the champion of {model.name}, with the outcomes.",
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
            unknown = {UNKNOWN: "no champion yet"}
            checks = [dg.AssetCheckResult(check_name=n, passed=True, metadata=unknown) for n in promises(model)]
            return dg.MaterializeResult(metadata={"champion": "none yet"}, check_results=checks)
        days = [date.fromisoformat(key) for key in context.partition_keys]
        predicted = predict_days(model, lake.snapshot, registry, days)
        preview = predicted.tail(_PREVIEW_ROWS).drop("inputs", "output")
        with_outcome = predicted.filter(pl.col(LOSS).is_not_null())
        metadata: dict[str, Any] = {
            "dagster/partition_row_count": predicted.height,
            "with_outcome": with_outcome.height,
            "newest": dg.MetadataValue.md(markdown(preview)) if predicted.height else "",
        }
        if with_outcome.height:
            metadata |= with_outcome.select(pl.col(LOSS).mean().alias("mean_loss"), pl.col(VERSION).max()).row(
                0, named=True
            )
        metrics, champion_verdicts = judge_champion(model, lake.snapshot, registry, champion, predicted)
        share(alert_store(settings()), f"outcomes/{model.name}", told(model.name, champion.number, metrics))
        checks = [
            dg.AssetCheckResult(
                check_name=verdict.name,
                passed=verdict.passed is not False,
                severity=dg.AssetCheckSeverity.WARN,
                description=verdict.says,
                metadata={UNKNOWN: verdict.says} if verdict.passed is None else {},
            )
            for verdict in champion_verdicts
        ]
        return dg.MaterializeResult(metadata=metadata | metrics, check_results=checks)

    return predict
