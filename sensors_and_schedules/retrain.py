"""Training again when there is a reason: the first data, drift, decay, many new labels."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile

import dagster as dg
import polars as pl
from deltalake import DeltaTable

from city.models.model import Model, ModelError
from city.models.model import models as declared
from city.models.predictions import LOSS, VERSION, decay
from city.models.registry import Registry
from city.models.retraining import LEAST_BETWEEN, Signs, reason
from city.settings import settings
from city_assets.models import REASON, model_key, view_rows
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

retrain_nightly = dg.ScheduleDefinition(
    name="retrain_nightly",
    job=train_models,
    cron_schedule="30 4 * * *",
    execution_timezone=settings().timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Whatever has happened: yesterday is new.",
)


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
    tried = {model: _tried_lately(context.instance, model, now) for model in declared()}
    reasons = [(model, why) for model, why in wanted(models.registry(), lake, now) if not tried[model.name]]
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


def wanted(registry: Registry, lake: LakeResource, now: datetime) -> list[tuple[Model, str]]:
    """The models that there is a reason to train, with it."""
    found = []
    for model in declared().values():
        if model.label.truth and not DeltaTable.is_deltatable(str(lake.root / model.label.truth)):
            continue  # nothing tells yet what came
        try:
            rows, _ = view_rows(model, lake.root)
        except ModelError:
            continue  # not built yet
        times = rows.select(model.view.time).collect().to_series()
        if why := reason(model, signs(model, registry, lake, times), now):
            found.append((model, why))
    return found


def signs(model: Model, registry: Registry, lake: LakeResource, times: pl.Series) -> Signs:
    """`times` are those of the view's rows."""
    versions = registry.versions(model.name)
    span: timedelta = times.max() - times.min() if len(times) else timedelta()  # type: ignore[operator,assignment]
    if not versions:
        return Signs(None, len(times), 0, span)
    newest, champion = versions[0], registry.at(model.name)
    trained = datetime.fromisoformat(newest.tags["trained_at"])
    then = int((times <= trained).sum())
    path = lake.root / "predictions" / model.name
    worse = None
    if champion is not None and path.exists():
        since = datetime.fromisoformat(champion.tags["trained_at"])
        recorded = pl.scan_delta(str(path)).select(VERSION, LOSS, model.view.time).collect()
        worse = decay(model, recorded, champion.number, since)
    return Signs(newest, len(times), then, span, drifted(lake.root, model.view.name), worse)
