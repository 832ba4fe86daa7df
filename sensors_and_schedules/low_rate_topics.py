"""Low-rate topics: a sensor that turns what is new in all of them into one run, at most every CITY_GATHER_SECONDS.

A run costs seconds to start, whatever it does; a run for each topic, as messages trickle in, would keep a core busy.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from city.contracts.model import Contract
from city.settings import settings
from city.streaming.bronze import BronzeStream
from city.streaming.records import Offsets, behind
from city_assets import keys
from resources.kafka import KafkaResource
from resources.lake import LakeResource

JOB = "ingest_low_rate"
_SECONDS = 15
_FIRST_SECONDS = 60.0  # the first messages of a topic wait for less, since much is built from them


@dataclass(frozen=True)
class News:
    """What a topic has that bronze has not; `attempt` counts the runs that were to bring it."""

    contract: Contract
    position: Offsets
    ends: Offsets
    attempt: int


def low_rate_sensor(contracts: Sequence[Contract]) -> dg.SensorDefinition:
    tables = [key for contract in contracts for key in (keys.bronze(contract), keys.quarantine(contract))]
    selection = dg.AssetSelection.assets(*tables).without_checks()
    job = dg.define_asset_job(JOB, selection, executor_def=dg.in_process_executor)

    @dg.sensor(
        name="low_rate_topics",
        job=job,
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Requests a run for what is new in {', '.join(contract.topic for contract in contracts)}.",
    )
    def new_messages(
        context: dg.SensorEvaluationContext, kafka: KafkaResource, lake: LakeResource
    ) -> dg.SensorResult | dg.SkipReason:
        from kafka.errors import KafkaError

        seen = json.loads(context.cursor or "{}")
        found, now = [], time.time()
        for contract in contracts:
            try:
                ends = kafka.ends(contract.topic)
            except KafkaError as error:
                return dg.SkipReason(f"Kafka at {kafka.address} is away: {error}")
            position = BronzeStream(lake.root, contract).load(sorted(ends))
            if behind(position, ends):
                found.append(News(contract, position, ends, next_attempt(seen.get(contract.topic), position)))
        if not found:
            return dg.SkipReason("nothing new")
        wait = seen.get("at", 0) + _gather_seconds(found, seen) - now
        if wait > 0:
            return dg.SkipReason(f"gathering for another {wait:.0f} s")
        if any(news.attempt for news in found) and _is_active(context.instance):
            return dg.SkipReason("a run is under way")
        asked = {news.contract.topic: {"position": _keyed(news.position), "attempt": news.attempt} for news in found}
        return dg.SensorResult([request(found)], cursor=json.dumps(seen | asked | {"at": now}))

    return new_messages


def request(found: Sequence[News]) -> dg.RunRequest:
    """One run for all of [position, ends). Its key names where it begins, so the same messages are never in two runs;
    another attempt, after one that failed, has another key."""
    return dg.RunRequest(
        run_key=" ".join(_begin(news) for news in found),
        asset_selection=[key for n in found for key in (keys.bronze(n.contract), keys.quarantine(n.contract))],
        run_config={"ops": {f"ingest_{n.contract.name}": {"config": {"end": _keyed(n.ends)}} for n in found}},
    )


def next_attempt(asked: dict[str, object] | None, position: Offsets) -> int:
    """0 for messages that no run was requested for, else how often one was."""
    return int(str(asked["attempt"])) + 1 if asked and asked["position"] == _keyed(position) else 0


def _gather_seconds(found: Sequence[News], seen: Mapping[str, object]) -> float:
    """How long after the last request the next may come. What failed is tried again at once, but only once."""
    gather = settings().gather_seconds
    if any(news.attempt == 1 for news in found):
        return 0.0
    return min(gather, _FIRST_SECONDS) if any(news.contract.topic not in seen for news in found) else gather


def _begin(news: News) -> str:
    begin = ",".join(f"{p}:{offset}" for p, offset in sorted(news.position.items()))
    return f"{news.contract.topic}@{begin}" + (f"#{news.attempt}" if news.attempt else "")


def _keyed(offsets: Offsets) -> dict[str, int]:
    return {str(p): offset for p, offset in offsets.items()}


def _is_active(instance: dg.DagsterInstance) -> bool:
    unfinished = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    return bool(instance.get_run_records(dg.RunsFilter(job_name=JOB, statuses=unfinished), limit=1))
