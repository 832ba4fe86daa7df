"""The sensor and the schedule that train models: on first data, drift, decay or many new labels, and every night."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import takewhile

import dagster as dg

from city.lake.snapshot import Snapshot
from city.models.compatibility import takes_inputs
from city.models.history import growth, recorded_losses
from city.models.model import Model, ModelError
from city.models.model import models as declared
from city.models.predictions import decay
from city.models.registry import Registry, Version
from city.models.retraining import LEAST_BETWEEN, Signs, reason
from city.settings import settings
from city.stack.history_progress import is_under_way
from city_assets.models import REASON, model_key
from city_assets.monitoring.drift import drifted_features
from city_assets.training import training_shortage
from resources.lake import LakeResource
from resources.models import ModelRegistryResource
from sensors_and_schedules.turns import TAKES_TURNS

_JOB = "train_models"
_RUNNING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
MODEL = "city/model"
"""The tag of a run with the name of the model that it trains."""
_LOOKED_AT = 6  # runs: after so many failures, the wait is a day
_MOST_BETWEEN = timedelta(days=1)

train_models = dg.define_asset_job(
    _JOB,
    dg.AssetSelection.assets(*(model_key(model) for model in declared().values())),
    executor_def=dg.in_process_executor,
    tags=TAKES_TURNS | {"dagster/max_retries": "0"},  # the sensor requests another run later
    description="Trains models; a better one becomes the champion.",
)


@dg.schedule(
    job=train_models,
    cron_schedule="30 4 * * *",
    execution_timezone=settings().timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Trains every model that can be trained: yesterday is new.",
)
def retrain_nightly(context: dg.ScheduleEvaluationContext, lake: LakeResource) -> list[dg.RunRequest] | dg.SkipReason:
    """Requests a run for each model that can be trained. Between two of them, builds and other runs have a turn."""
    snapshot = lake.snapshot
    shortages = {model.name: training_shortage(model, snapshot) for model in declared().values()}
    not_yet = "; ".join(shortage for shortage in shortages.values() if shortage)
    ready = [model for model in declared().values() if shortages[model.name] is None]
    if not ready:
        return dg.SkipReason(f"no model can be trained yet: {not_yet}")
    if not_yet:
        context.log.info("not trained yet: %s", not_yet)
    night = context.scheduled_execution_time
    return [
        dg.RunRequest(
            run_key=f"{model.name} {night:%Y-%m-%d}",
            asset_selection=[model_key(model)],
            tags={MODEL: model.name, REASON: "every night"},
        )
        for model in ready
    ]


@dg.sensor(
    job=train_models,
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Trains a model on drift of its inputs, on decay, on enough new labels, and the first time.",
)
def retrain(
    context: dg.SensorEvaluationContext, lake: LakeResource, models: ModelRegistryResource
) -> dg.SensorResult | dg.SkipReason:
    """Requests a run for one model that has a reason to be trained, unless a training is under way."""
    if is_under_way(settings()):
        return dg.SkipReason("the history is being made, and with it the first version of each model")
    if context.instance.get_run_records(dg.RunsFilter(job_name=_JOB, statuses=_RUNNING), limit=1):
        return dg.SkipReason("a training is going on")
    now = datetime.now(UTC)
    candidates = [model for model in declared().values() if not _was_tried_lately(context.instance, model.name, now)]
    reasons = models_to_train(models.registry(), lake.snapshot, now, candidates)
    if not reasons:
        return dg.SkipReason("no model has a reason")
    requests = [
        dg.RunRequest(asset_selection=[model_key(model)], tags={MODEL: model.name, REASON: why})
        for model, why in reasons
    ]
    return dg.SensorResult(run_requests=requests[:1])  # one model at a time: the others wait for the next tick


def _was_tried_lately(instance: dg.DagsterInstance, model: str, now: datetime) -> bool:
    """Returns whether the model's last training is too recent for another one.

    A failed training leaves no version, so the runs decide. Each further failure doubles the wait, up to a day.
    """
    runs = instance.get_run_records(dg.RunsFilter(job_name=_JOB, tags={MODEL: model}), limit=_LOOKED_AT)
    failed = takewhile(lambda run: run.dagster_run.status == dg.DagsterRunStatus.FAILURE, runs)
    wait = min(LEAST_BETWEEN * 2 ** max(0, len(list(failed)) - 1), _MOST_BETWEEN)
    return bool(runs) and now - runs[0].create_timestamp < wait


def models_to_train(
    registry: Registry, snapshot: Snapshot, now: datetime, candidates: Iterable[Model] | None = None
) -> list[tuple[Model, str]]:
    """Returns the models that can be trained and have a reason for it, each with the reason.

    `candidates` are the models to consider, by default all.
    """
    reasons = []
    for model in declared().values() if candidates is None else candidates:
        versions = registry.versions(model.name)
        if versions and now - trained_at(versions[0]) < LEAST_BETWEEN:
            continue
        try:
            model_signs = collect_signs(model, registry, snapshot, versions[0] if versions else None)
        except ModelError:
            continue  # its view is not built yet
        why = reason(model, model_signs, now)
        if why and training_shortage(model, snapshot) is None:
            reasons.append((model, why))
    return reasons


def collect_signs(model: Model, registry: Registry, snapshot: Snapshot, newest: Version | None) -> Signs:
    """Collects the signs of whether a model should be trained again.

    Reads the Delta log, and a few days of the model's view and predictions. `newest` is the model's newest version.
    """
    timezone = settings().timezone
    if newest is None:
        return Signs(None, 0, 0)
    view_growth = growth(model, snapshot, trained_at(newest), timezone)
    champion, loss_decay, takes = registry.at(model.name), None, True
    if champion is not None:
        takes = takes_inputs(model, champion, partial(registry.content, champion))
        since = trained_at(champion)
        losses = recorded_losses(model, snapshot, champion.number, since, timezone)
        loss_decay = None if losses is None else decay(model, losses, champion.number, since)
    return Signs(
        newest,
        view_growth.rows,
        view_growth.then,
        drifted=drifted_features(snapshot, model.view.name),
        takes_inputs=takes,
        decay=loss_decay,
    )


def trained_at(version: Version) -> datetime:
    """Returns the time at which a version was trained."""
    return datetime.fromisoformat(version.tags["trained_at"])
