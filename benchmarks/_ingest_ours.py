"""One measurement of our hot path: reads the topic to its end, prints a JSON line. Arguments: client (the consumer,
whose messages nobody looks at), bronze or full, the number of valid messages, the number of broken ones."""

import json
import resource
import sys
import threading
import time

from confluent_kafka import TopicPartition

from city import questdb
from city.settings import Settings, settings
from city.streaming.job import StreamJob
from city.streaming.pacing import Pacing
from city.streaming.pipeline import SinkFactory, questdb_sink
from city.streaming.source import FETCH, KafkaSource
from city_assets.traffic.contract import VEHICLE_POSITIONS


def main(name: str, valid: int, broken: int) -> dict[str, float]:
    config = settings()
    if name == "client":
        return _client(config, valid + broken)
    sinks: tuple[SinkFactory, ...] = () if name == "bronze" else (questdb_sink,)
    if sinks:
        for table in (VEHICLE_POSITIONS.name, *(w.name for w in VEHICLE_POSITIONS.windows)):
            questdb.execute(config.questdb, f"DROP TABLE IF EXISTS {table}")
    job = StreamJob([VEHICLE_POSITIONS], config, sinks)
    report = job.pipelines[0].report
    thread = threading.Thread(target=job.run)
    thread.start()
    while report.rows == 0:
        time.sleep(0.001)
    first, began = report.rows + report.quarantined, time.perf_counter()
    while report.rows + report.quarantined < valid + broken and not job.stop.is_set():
        time.sleep(0.002)
    while sinks and (any(report.sinks.values()) or not _applied(config.questdb)):
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    job.stop.set()
    thread.join()
    if (report.rows, report.quarantined) != (valid, broken):
        raise SystemExit(f"counted {report.rows} and {report.quarantined}, not {valid} and {broken}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"events_per_second": (valid + broken - first) / seconds, "seconds": seconds, "peak_mb": peak}


def _client(config: Settings, messages: int) -> dict[str, float]:
    """The hot path's own consumer, with its settings; the rate is from its first messages to its last."""
    source = KafkaSource(config.kafka, VEHICLE_POSITIONS.topic, config.batch_rows, Pacing(config.latency_seconds))
    consumer = source.consumer
    consumer.assign([TopicPartition(VEHICLE_POSITIONS.topic, p, 0) for p in source.partitions()])
    count = first = len(consumer.consume(FETCH, 30))
    began = time.perf_counter()
    while count < messages:
        count += len(consumer.consume(FETCH, 1))
    seconds = time.perf_counter() - began
    consumer.close()
    return {"events_per_second": (count - first) / seconds, "seconds": seconds, "peak_mb": 0.0}


def _applied(server: questdb.QuestDBServer) -> bool:
    """Whether all that was sent is visible."""
    pending = "SELECT count() FROM wal_tables() WHERE writerTxn < sequencerTxn"
    return bool(questdb.rows(server, pending)[0][0] == 0)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
