"""Two assets for each declared model: its training, and its champion's daily predictions with the outcomes."""

from collections.abc import Mapping
from datetime import UTC, date, datetime

import dagster as dg
import polars as pl

from city.alerts.store import alert_store
from city.contracts.registry import Domain
from city.models.compatible import takes_inputs
from city.models.model import Model, models_of
from city.models.performance import CALIBRATED, COVERS, LASTING, is_young, promises
from city.models.predictions import LOSS, VERSION
from city.settings import settings
from city.tables.registry import is_live
from city_assets import keys
from city_assets.automation import HOURLY, when_changed
from city_assets.champion_predictions import judge_champion, predict_days
from city_assets.monitoring.checks import UNKNOWN
from city_assets.preview import Metadata, markdown
from city_assets.tables import partitions
from city_assets.training import train_on
from resources.lake import LakeResource
from resources.mlflow_run import MLflowRunResource
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


_PROMISES = {
    CALIBRATED: "Predictions are right as often as their confidence says.",
    COVERS: "Prediction intervals contain as many outcomes as they promise.",
    LASTING: "The losses have not grown since the champion's first ones.",
}


def check_better(model: Model, scores: Mapping[str, Mapping[str, float]], young: bool) -> dg.AssetCheckResult:
    """Checks that the model beats the naive prediction, by its measure in `scores` (see FittedModel).

    A young model may fail to: it has learned from minutes, and one outlier among the held-out rows decides. That is
    unknown rather than failed, as a young model's promises are.
    """
    is_better = scores["model"][model.measure] < scores["naive"][model.measure]
    metadata: Metadata = {predictor: measures[model.measure] for predictor, measures in scores.items()}
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
        description=model.description,
        check_specs=[
            dg.AssetCheckSpec(
                BETTER, asset=model_key(model), description="On the held-out rows the model beats the naive prediction."
            )
        ],
        metadata={"inputs": ", ".join(model.inputs), "label": model.label.description},
    )
    def fit(
        context: dg.AssetExecutionContext, lake: LakeResource, models: ModelRegistryResource, mlflow: MLflowRunResource
    ) -> dg.MaterializeResult:
        registry = models.registry()
        tags = {"dagster_run_id": context.run_id, REASON: context.run.tags.get(REASON, "by hand")}
        trained = train_on(model, lake.snapshot, settings(), registry, context.log.info, tags)
        scores = trained.fitted.scores
        check = check_better(model, scores, is_young(registry.versions(model.name), datetime.now(UTC)))
        metadata: Metadata = {
            "version": trained.version.number,
            "mlflow_run": mlflow.run_id,
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
        partitions_def=partitions(model.view.table),
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=when_changed(HOURLY, builds_history=False) if is_live(model.view.table) else None,
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
        if champion is None or not takes_inputs(model, champion, registry):
            state = "none yet" if champion is None else f"version {champion.number} takes inputs of an earlier release"
            unknown = {UNKNOWN: f"champion: {state}"}
            checks = [dg.AssetCheckResult(check_name=n, passed=True, metadata=unknown) for n in promises(model)]
            return dg.MaterializeResult(metadata={"champion": state}, check_results=checks)
        days = [date.fromisoformat(key) for key in context.partition_keys]
        predicted = predict_days(model, lake.snapshot, registry, days)
        preview = predicted.tail(_PREVIEW_ROWS).drop("inputs", "output")
        with_outcome = predicted.filter(pl.col(LOSS).is_not_null())
        metadata: Metadata = {
            "dagster/partition_row_count": predicted.height,
            "with_outcome": with_outcome.height,
            "newest": dg.MetadataValue.md(markdown(preview)) if predicted.height else "",
        }
        if with_outcome.height:
            metadata |= with_outcome.select(pl.col(LOSS).mean().alias("mean_loss"), pl.col(VERSION).max()).row(
                0, named=True
            )
        judgement = judge_champion(model, lake.snapshot, registry, champion, predicted)
        alert_store(settings()).outcome_metrics.share(
            model.name, champion.number, judgement.newest_day_metrics, judgement.newest_outcome
        )
        checks = [
            dg.AssetCheckResult(
                check_name=verdict.name,
                passed=verdict.passed is not False,
                severity=dg.AssetCheckSeverity.WARN,
                description=verdict.description,
                metadata={UNKNOWN: verdict.description} if verdict.passed is None else {},
            )
            for verdict in judgement.verdicts
        ]
        return dg.MaterializeResult(metadata={**metadata, **judgement.metrics}, check_results=checks)

    return predict
