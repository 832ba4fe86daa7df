"""Training again when there is a reason: the first data, drift, decay, many new labels."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import dagster as dg

from city.lake.snapshot import Snapshot
from city.models.history import growth, recorded_losses
from city.models.model import Model, ModelError
from city.models.model import models as declared
from city.models.predictions import decay
from city.models.registry import Registry, Version
from city.models.retraining import LEAST_BETWEEN, Signs, reason
from city.settings import settings
from city_assets.models import REASON, model_key, training_shortage
from city_assets.monitoring.drift import drifted
from resources.lake import LakeResource
from resources.models import ModelRegistryResource

_JOB = "train_models"
_RUNNING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
MODEL = "city/model"
_LOOKED_AT = 6  # runs; so many failures make the wait a day
_MOST_BETWEEN = timedelta(days=1)

train_models = dg.define_asset_job(
    _JOB,
    dg.AssetSelection.assets(*(model_key(model) for model in declared().values())),
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "0"},  # the sensor tries again, in its own time
    description="Trains models; a better one becomes the champion.",
)


@dg.schedule(
    job=train_models,
    cron_schedule="30 4 * * *",
    execution_timezone=settings().timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Trains every model that can be trained: yesterday is new.",
)
def retrain_nightly(context: dg.ScheduleEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    snapshot = lake.snapshot
    shortages = {model.name: training_shortage(model, snapshot) for model in declared().values()}
    not_yet = "; ".join(shortage for shortage in shortages.values() if shortage)
    ready = [model_key(model) for model in declared().values() if shortages[model.name] is None]
    if not ready:
        return dg.SkipReason(f"no model can be trained yet: {not_yet}")
    if not_yet:
        context.log.info("not trained yet: %s", not_yet)
    return dg.RunRequest(asset_selection=ready, tags={REASON: "every night"})


@dg.sensor(
    job=train_models,
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Trains a model on drift of its inputs, on decay, on enough new labels, and the first time.",
)
def retrain(
    context: dg.SensorEvaluationContext, lake: LakeResource, models: ModelRegistryResource
) -> dg.SensorResult | dg.SkipReason:
    if context.instance.get_run_records(dg.RunsFilter(job_name=_JOB, statuses=_RUNNING), limit=1):
        return dg.SkipReason("a training is going on")
    now = datetime.now(UTC)
    waiting = [model for model in declared().values() if not _tried_lately(context.instance, model.name, now)]
    reasons = wanted(models.registry(), lake.snapshot, now, waiting)
    if not reasons:
        return dg.SkipReason("no model has a reason")
    requests = [
        dg.RunRequest(asset_selection=[model_key(model)], tags={MODEL: model.name, REASON: why})
        for model, why in reasons
    ]
    return dg.SensorResult(run_requests=requests[:1])  # one at a time: the others wait for the next tick


def _tried_lately(instance: dg.DagsterInstance, model: str, now: datetime) -> bool:
    """Whether the last training is too recent. One that failed has left no version; each further failure doubles the
    time to the next try, up to a day."""
    runs = instance.get_run_records(dg.RunsFilter(job_name=_JOB, tags={MODEL: model}), limit=_LOOKED_AT)
    failed = takewhile(lambda run: run.dagster_run.status == dg.DagsterRunStatus.FAILURE, runs)
    wait = min(LEAST_BETWEEN * 2 ** max(0, len(list(failed)) - 1), _MOST_BETWEEN)
    return bool(runs) and now - runs[0].create_timestamp < wait


def wanted(
    registry: Registry, snapshot: Snapshot, now: datetime, of: Iterable[Model] | None = None
) -> list[tuple[Model, str]]:
    """The models, among those given or all, that there is a reason to train and that can be, with the reason."""
    found = []
    for model in declared().values() if of is None else of:
        versions = registry.versions(model.name)
        if versions and now - trained_at(versions[0]) < LEAST_BETWEEN:
            continue
        try:
            known = signs(model, registry, snapshot, versions[0] if versions else None)
        except ModelError:
            continue  # not built yet
        why = reason(model, known, now)
        if why and training_shortage(model, snapshot) is None:
            found.append((model, why))
    return found


def signs(model: Model, registry: Registry, snapshot: Snapshot, newest: Version | None) -> Signs:
    """What is known of the model, from the Delta log, and from few days of its view and its predictions."""
    timezone = settings().timezone
    if newest is None:
        return Signs(None, 0, 0)
    grown = growth(model, snapshot, trained_at(newest), timezone)
    champion, worse = registry.at(model.name), None
    if champion is not None:
        since = trained_at(champion)
        recorded = recorded_losses(model, snapshot, champion.number, since, timezone)
        worse = None if recorded is None else decay(model, recorded, champion.number, since)
    return Signs(newest, grown.rows, grown.then, drifted=drifted(snapshot, model.view.name), decay=worse)


def trained_at(version: Version) -> datetime:
    return datetime.fromisoformat(version.tags["trained_at"])
