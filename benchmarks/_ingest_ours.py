"""One measurement of our hot path: reads the topic to its end, prints a JSON line. Arguments: bronze or full, the
number of valid messages, the number of broken ones."""

import json
import resource
import sys
import threading
import time

from city import questdb
from city.settings import settings
from city.streaming.job import StreamJob
from city.streaming.pipeline import SinkFactory, questdb_sink
from city_assets.traffic.contract import VEHICLE_POSITIONS


def main(name: str, valid: int, broken: int) -> dict[str, float]:
    config = settings()
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


def _applied(address: str) -> bool:
    """Whether all that was sent is visible."""
    pending = "SELECT count() FROM wal_tables() WHERE writerTxn < sequencerTxn"
    return bool(questdb.rows(address, pending)[0][0] == 0)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
