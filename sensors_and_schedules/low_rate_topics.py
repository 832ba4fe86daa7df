"""The sensor of the low-rate topics. It requests one run for the new messages of all topics.

It requests at most one run every CITY_GATHER_SECONDS. A run takes seconds to start, whatever it does. A run for each
topic and message would keep a core busy.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from city.contracts.model import Contract
from city.settings import settings
from city.streaming.bronze import BronzeStream
from city.streaming.records import Offsets, is_behind
from city_assets import keys
from resources.kafka import KafkaResource
from resources.lake import LakeResource
from sensors_and_schedules.turns import TAKES_TURNS

JOB = "ingest_low_rate"
_SECONDS = 15
_FIRST_SECONDS = 60.0  # the first messages of a topic wait at most this long, because much is built from them


@dataclass(frozen=True)
class NewMessages:
    """The new messages of a topic: the offset range [position, ends) that bronze lacks.

    `attempt` is the number of runs that were requested for them before.
    """

    contract: Contract
    position: Offsets
    ends: Offsets
    attempt: int


def low_rate_sensor(contracts: Sequence[Contract]) -> dg.SensorDefinition:
    """Builds the sensor of the low-rate `contracts`, and the job that it requests."""
    tables = [key for contract in contracts for key in (keys.bronze(contract), keys.quarantine(contract))]
    selection = dg.AssetSelection.assets(*tables).without_checks()
    job = dg.define_asset_job(JOB, selection, executor_def=dg.in_process_executor, tags=TAKES_TURNS)

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
        news, now = [], time.time()
        for contract in contracts:
            try:
                ends = kafka.ends(contract.topic)
            except KafkaError as error:
                return dg.SkipReason(f"Kafka at {kafka.address} is unavailable: {error}")
            position = BronzeStream(lake.root, contract).load(sorted(ends))
            if is_behind(position, ends):
                news.append(NewMessages(contract, position, ends, next_attempt(seen.get(contract.topic), position)))
        if not news:
            return dg.SkipReason("nothing new")
        wait = seen.get("at", 0) + _gather_seconds(news, seen) - now
        if wait > 0:
            return dg.SkipReason(f"gathering for another {wait:.0f} s")
        if any(topic_news.attempt for topic_news in news) and _is_active(context.instance):
            return dg.SkipReason("a run is under way")
        requested = {
            topic_news.contract.topic: {"position": _to_json(topic_news.position), "attempt": topic_news.attempt}
            for topic_news in news
        }
        return dg.SensorResult([build_request(news)], cursor=json.dumps(seen | requested | {"at": now}))

    return new_messages


def build_request(news: Sequence[NewMessages]) -> dg.RunRequest:
    """Builds the request of one run for all new messages, the range [position, ends) of each topic.

    The run key names the begin of each range, so the same messages are never in two runs. A new attempt after a failed
    run has another key.
    """
    return dg.RunRequest(
        run_key=" ".join(_range_key(topic_news) for topic_news in news),
        asset_selection=[key for n in news for key in (keys.bronze(n.contract), keys.quarantine(n.contract))],
        run_config={"ops": {f"ingest_{n.contract.name}": {"config": {"end": _to_json(n.ends)}} for n in news}},
    )


def next_attempt(requested: dict[str, object] | None, position: Offsets) -> int:
    """Returns how many runs were requested for the messages from `position` on, 0 for new messages.

    `requested` is the last request of the topic in the cursor, if any.
    """
    return int(str(requested["attempt"])) + 1 if requested and requested["position"] == _to_json(position) else 0


def _gather_seconds(news: Sequence[NewMessages], seen: Mapping[str, object]) -> float:
    """Returns the least time between the last request and the next. A failed run is retried at once, but only once."""
    gather = settings().gather_seconds
    if any(topic_news.attempt == 1 for topic_news in news):
        return 0.0
    return min(gather, _FIRST_SECONDS) if any(topic_news.contract.topic not in seen for topic_news in news) else gather


def _range_key(news: NewMessages) -> str:
    begin = ",".join(f"{p}:{offset}" for p, offset in sorted(news.position.items()))
    return f"{news.contract.topic}@{begin}" + (f"#{news.attempt}" if news.attempt else "")


def _to_json(offsets: Offsets) -> dict[str, int]:
    return {str(p): offset for p, offset in offsets.items()}


def _is_active(instance: dg.DagsterInstance) -> bool:
    unfinished = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    return bool(instance.get_run_records(dg.RunsFilter(job_name=JOB, statuses=unfinished), limit=1))
