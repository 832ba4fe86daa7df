"""For each low-rate topic a sensor that turns its new offset range into one run."""

import json

import dagster as dg

from city.contracts.model import Contract
from city.contracts.registry import Domain
from city.streaming.bronze import BronzeStream
from city.streaming.records import Offsets, behind
from city_assets import keys
from resources.kafka import KafkaResource
from resources.lake import LakeResource

_SECONDS = 15


def low_rate_sensor(domain: Domain, contract: Contract) -> dg.SensorDefinition:
    tables = dg.AssetSelection.assets(keys.bronze(contract), keys.quarantine(contract))
    job = dg.define_asset_job(
        f"ingest_{contract.name}_job", tables.without_checks(), executor_def=dg.in_process_executor
    )

    @dg.sensor(
        name=f"new_{contract.name}",
        job=job,
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Requests a run for what is new in {contract.topic}.",
    )
    def new_messages(
        context: dg.SensorEvaluationContext, kafka: KafkaResource, lake: LakeResource
    ) -> dg.SensorResult | dg.SkipReason:
        from kafka.errors import KafkaError

        try:
            ends = kafka.ends(contract.topic)
        except KafkaError as error:
            return dg.SkipReason(f"Kafka at {kafka.address} is away: {error}")
        position = BronzeStream(lake.root, contract).load(sorted(ends))
        if not behind(position, ends):
            return dg.SkipReason(f"{contract.topic}: nothing new after {position}")
        attempt = next_attempt(context.cursor, position)
        if attempt and _is_active(context.instance, job.name):
            return dg.SkipReason(f"{contract.topic}: a run is under way from {position}")
        return dg.SensorResult([request(contract, position, ends, attempt)], cursor=to_cursor(position, attempt))

    return new_messages


def request(contract: Contract, position: Offsets, ends: Offsets, attempt: int) -> dg.RunRequest:
    """One run for [position, ends). Its key names where it begins, so the same messages are never in two runs;
    another attempt, after one that failed, has another key."""
    begin = ",".join(f"{p}:{offset}" for p, offset in sorted(position.items()))
    config = {"end": {str(p): offset for p, offset in ends.items()}}
    return dg.RunRequest(
        run_key=f"{contract.topic}@{begin}" + (f"#{attempt}" if attempt else ""),
        run_config={"ops": {f"ingest_{contract.name}": {"config": config}}},
    )


def next_attempt(cursor: str | None, position: Offsets) -> int:
    """0 for messages that no run was requested for, else how often one was."""
    if not cursor:
        return 0
    seen = json.loads(cursor)
    return int(seen["attempt"]) + 1 if seen["position"] == {str(p): o for p, o in position.items()} else 0


def to_cursor(position: Offsets, attempt: int) -> str:
    return json.dumps({"position": {str(p): offset for p, offset in position.items()}, "attempt": attempt})


def _is_active(instance: dg.DagsterInstance, job: str) -> bool:
    unfinished = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    return bool(instance.get_run_records(dg.RunsFilter(job_name=job, statuses=unfinished), limit=1))
