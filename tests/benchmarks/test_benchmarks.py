"""The crash benchmark, shorter: what it counts must come out even."""

import polars as pl

from benchmarks import _events, crash, known
from city.lake import bronze_path
from city.settings import Settings
from city.streaming.decode import decode
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.events import raw


def test_killed_again_and_again_nothing_is_lost_and_nothing_is_twice(stack: Settings, stack_parts: object) -> None:
    figures = crash.crash(fresh_topic(stack), print, kills=4, rate=2000)
    assert figures["kills"] == 4
    assert figures["fenced"] >= 1
    assert figures["produced"] > 10_000
    assert (figures["lost"], figures["duplicated"], figures["windows_wrong"]) == (0, 0, 0)
    assert figures["bronze"] == figures["questdb"] > 0
    assert figures["bronze"] + figures["quarantined"] == figures["produced"]


def test_what_is_missing_or_double_is_counted() -> None:
    """The check itself can fail: a row less and a row more are seen, in each store."""
    sent = crash.Sent(["a", "b", "c"], [b"{", b"["])
    whole = ["a", "b", "c"]
    rejects = pl.DataFrame({"partition": [0, 0], "offset": [1, 2], "raw": [b"{", b"["]})
    assert crash.count_faults(sent, whole, whole, rejects) == (0, 0)
    assert crash.count_faults(sent, ["a", "b"], whole, rejects) == (1, 0)
    assert crash.count_faults(sent, whole, ["c"], rejects) == (2, 0)
    assert crash.count_faults(sent, whole, whole, rejects.head(1)) == (1, 0)
    assert crash.count_faults(sent, [*whole, "b"], whole, rejects) == (0, 1)
    assert crash.count_faults(sent, whole, [*whole, *whole], rejects) == (0, 3)
    assert crash.count_faults(sent, whole, whole, pl.concat([rejects, rejects.head(1)])) == (0, 1)
    assert crash.count_faults(sent, ["a", "b", "b"], whole, rejects) == (1, 1)


def test_the_events_of_benchmarks_are_as_valid_as_they_say() -> None:
    generated = list(_events.messages(2000, broken_in=10, seed=1))
    from datetime import UTC, datetime

    rows, rejects = decode(VEHICLE_POSITIONS, raw([m for _, m, _ in generated], arrived=datetime.now(UTC)), {})
    assert [offset for offset, (_, _, valid) in enumerate(generated) if not valid] == rejects["offset"].to_list()
    assert rows.height > 1500


def test_every_benchmark_is_known() -> None:
    assert known() == [
        "alarms",
        "anomaly",
        "batch",
        "canary",
        "city",
        "crash",
        "decode",
        "drift",
        "e2e",
        "elec2",
        "features",
        "first",
        "fleet",
        "fraud",
        "ingest",
        "latency",
        "metr-la",
        "rul",
        "serve",
        "trips",
    ]


def fresh_topic(stack: Settings) -> Settings:
    """The benchmark counts a whole topic and its tables, so they must be empty."""
    from confluent_kafka.admin import AdminClient

    from city import questdb

    admin = AdminClient({"bootstrap.servers": str(stack.kafka)})
    if VEHICLE_POSITIONS.topic in admin.list_topics(timeout=10).topics:
        admin.delete_topics([VEHICLE_POSITIONS.topic])[VEHICLE_POSITIONS.topic].result(10)
    for table in (VEHICLE_POSITIONS.name, *(w.name for w in VEHICLE_POSITIONS.windows)):
        questdb.execute(stack.questdb, f"DROP TABLE IF EXISTS {table}")
    assert not bronze_path(stack.lake, VEHICLE_POSITIONS).exists()
    return stack
