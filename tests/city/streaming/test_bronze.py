import random
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from city.lake import bronze_path, quarantine_path, row_count
from city.lake.preview import preview_table
from city.lake.tables import ForeignTable, open_table
from city.privacy.delta_tables import cut_log
from city.stack.backoff import Backoff, Stopped
from city.streaming import rejects as rejects_module
from city.streaming import table_writer as module
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.history import append_day
from city.streaming.records import Batch, Offsets
from city.streaming.sinks.features import earlier_events
from city.streaming.table_writer import Fenced
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.events import encode, later, position, raw


def batch(first: int, count: int, bad: int = 0) -> tuple[Batch, pl.DataFrame]:
    """`count` valid and `bad` broken messages of partition 0, from offset `first`."""
    events = encode(*(position(trip_id=f"t{first + n}", timestamp=later(n / 100)) for n in range(count)))
    received = raw([*events, *([b"{"] * bad)], first=first)
    rows, rejects = decode(VEHICLE_POSITIONS, received, {})
    return Batch(rows, received.start, received.end), rejects


def commit(
    stream: BronzeStream, first: int, count: int, bad: int = 0, sinks: dict[str, Offsets] | None = None
) -> list[str]:
    failures: list[str] = []
    stream.commit(*batch(first, count, bad), sinks or {}, threading.Event(), failures.append)
    return failures


def claim(stream: BronzeStream, partitions: list[int]) -> Offsets:
    return stream.claim(partitions, threading.Event(), lambda _: None)


def opened(lake: Path) -> BronzeStream:
    stream = BronzeStream(lake, VEHICLE_POSITIONS)
    stream.load([0, 1])
    return stream


def offsets(lake: Path) -> list[int]:
    return pl.read_delta(str(bronze_path(lake, VEHICLE_POSITIONS)))["_offset"].sort().to_list()


def quarantined(lake: Path) -> list[int]:
    return pl.read_delta(str(quarantine_path(lake, VEHICLE_POSITIONS)))["offset"].sort().to_list()


def gathering(lake: Path) -> BronzeStream:
    """A stream that commits its rejects when it is told to."""
    stream = BronzeStream(lake, VEHICLE_POSITIONS, rejects_seconds=1_000)
    stream.load([0, 1])
    return stream


def test_the_log_says_where_to_resume(tmp_path: Path) -> None:
    stream = opened(tmp_path)
    assert stream.position == {0: 0, 1: 0}
    commit(stream, 0, 3, bad=2, sinks={"kafka": {0: 0, 1: 7}})
    again = opened(tmp_path)
    assert again.position == {0: 5, 1: 0}
    assert again.sink_position("kafka") == {0: 0, 1: 7}
    assert again.sink_position("other") == {0: 0, 1: 0}
    assert again.watermarks == stream.watermarks
    assert again.watermarks[0] == int(
        pl.Series([later(0.02)]).str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ").dt.epoch("us")[0]
    )
    assert row_count(bronze_path(tmp_path, VEHICLE_POSITIONS)) == 3
    assert row_count(quarantine_path(tmp_path, VEHICLE_POSITIONS)) == 2


def test_a_batch_without_a_valid_row_moves_the_position_too(tmp_path: Path) -> None:
    commit(opened(tmp_path), 0, 0, bad=3)
    assert opened(tmp_path).position[0] == 3


def test_of_two_writers_the_second_is_fenced_off_and_writes_nothing(tmp_path: Path) -> None:
    old, new = opened(tmp_path), opened(tmp_path)
    commit(old, 0, 5)
    with pytest.raises(Fenced, match="another process now writes vehicle_positions"):
        commit(new, 0, 5)
    commit(old, 5, 1)
    assert offsets(tmp_path) == list(range(6))


def test_the_newest_claim_is_the_one_that_writes(tmp_path: Path) -> None:
    old = BronzeStream(tmp_path, VEHICLE_POSITIONS)
    assert claim(old, [0, 1]) == {0: 0, 1: 0}
    commit(old, 0, 5)
    old.check()
    new = BronzeStream(tmp_path, VEHICLE_POSITIONS)
    assert claim(new, [0, 1]) == {0: 5, 1: 0}
    with pytest.raises(Fenced, match="another process now writes vehicle_positions"):
        commit(old, 5, 1)
    with pytest.raises(Fenced, match=r"claims \{0: 2, 1: 2\}"):
        old.check()
    commit(new, 5, 1)
    new.check()
    assert offsets(tmp_path) == list(range(6))


def test_a_claim_and_a_commit_of_another_writer_exclude_each_other(tmp_path: Path) -> None:
    """Each is made from a handle of the table that does not know of the other."""
    old, new = BronzeStream(tmp_path, VEHICLE_POSITIONS), BronzeStream(tmp_path, VEHICLE_POSITIONS)
    claim(old, [0])
    commit(old, 0, 3)
    assert claim(new, [0]) == {0: 3}
    with pytest.raises(Fenced):
        commit(old, 3, 1)


@pytest.mark.parametrize("first", ["rejects", "claim"])
def test_of_two_writers_with_rejects_the_newest_goes_on(tmp_path: Path, first: str) -> None:
    """The old one is between quarantine and bronze, or before both, when the new one claims them."""
    old, new = BronzeStream(tmp_path, VEHICLE_POSITIONS), BronzeStream(tmp_path, VEHICLE_POSITIONS)
    claim(old, [0])
    appended, rejects = batch(0, 2, bad=2)
    if first == "rejects":
        old._commit_rejects(appended, rejects, threading.Event(), lambda _: None)
    claim(new, [0])
    with pytest.raises(Fenced):
        commit(old, 0, 2, bad=2)
    commit(new, 0, 2, bad=2)
    assert offsets(tmp_path) == [0, 1]
    assert quarantined(tmp_path) == [2, 3]


def test_the_fenced_writer_leaves_no_quarantine_twice(tmp_path: Path) -> None:
    old, new = opened(tmp_path), opened(tmp_path)
    commit(old, 0, 1, bad=1)
    with pytest.raises(Fenced):
        commit(new, 0, 1, bad=1)
    assert row_count(quarantine_path(tmp_path, VEHICLE_POSITIONS)) == 1


def test_a_crash_between_quarantine_and_bronze_repeats_neither(tmp_path: Path) -> None:
    stream = opened(tmp_path)
    appended, rejects = batch(0, 2, bad=2)
    stream._commit_rejects(appended, rejects, threading.Event(), lambda _: None)
    again = opened(tmp_path)
    assert again.position[0] == 0
    commit(again, 0, 2, bad=3)
    assert offsets(tmp_path) == [0, 1]
    assert quarantined(tmp_path) == [2, 3, 4]


def test_rejects_that_were_gathered_when_the_writer_was_killed_are_read_again(tmp_path: Path) -> None:
    """Bronze's log says from where; what it has of that range is not written twice."""
    killed = BronzeStream(tmp_path, VEHICLE_POSITIONS, rejects_seconds=1_000)
    killed.load([0, 1])
    assert commit(killed, 0, 3) == []
    commit(killed, 3, 3, bad=2)
    commit(killed, 8, 2)
    assert row_count(quarantine_path(tmp_path, VEHICLE_POSITIONS)) == 0
    again = BronzeStream(tmp_path, VEHICLE_POSITIONS, rejects_seconds=1_000)
    assert (again.load([0, 1])[0], again.resume[0]) == (10, 3)
    appended, rejects = batch(3, 3, bad=2)
    assert again.commit(appended, rejects, {}, threading.Event(), print).rows.height == 0
    later_found, later_rejects = batch(8, 4, bad=1)
    fresh = again.commit(later_found, later_rejects, {}, threading.Event(), print)
    assert (fresh.start, fresh.end, fresh.rows["_offset"].to_list()) == ({0: 10}, {0: 13}, [10, 11])
    again.flush_rejects(threading.Event(), print)
    commit(again, 13, 1)
    assert offsets(tmp_path) == [*range(6), *range(8, 12), 13]
    assert quarantined(tmp_path) == [6, 7, 12]
    last = opened(tmp_path)
    assert (last.position[0], last.resume[0]) == (14, 14)


def test_rejects_that_were_committed_after_the_last_mark_are_not_read_again(tmp_path: Path) -> None:
    """Kafka may have deleted them by now, and a reading from there would report that as a loss."""
    killed = gathering(tmp_path)
    commit(killed, 0, 3)
    commit(killed, 3, 3, bad=2)
    commit(killed, 8, 2)
    killed.flush_rejects(threading.Event(), print)  # and bronze's log still has the mark of before
    again = gathering(tmp_path)
    assert again._bronze.read_version(0, "rejects") == 3
    assert (again.position[0], again.resume[0]) == (10, 8)
    commit(again, 8, 4, bad=1)
    again.flush_rejects(threading.Event(), print)
    assert offsets(tmp_path) == [*range(6), *range(8, 12)]
    assert quarantined(tmp_path) == [6, 7, 12]


def test_a_copy_that_is_killed_before_it_has_read_rejects_again_leaves_their_mark(tmp_path: Path) -> None:
    """What it commits meanwhile is of another partition."""
    commit(gathering(tmp_path), 0, 3, bad=2)
    second = gathering(tmp_path)
    assert second.resume == {0: 0, 1: 0}
    appended, _ = batch(0, 2)
    other = Batch(appended.rows.with_columns(_partition=pl.lit(1, pl.Int32)), {1: 0}, {1: 2})
    second.commit(other, pl.DataFrame(), {}, threading.Event(), print)
    third = gathering(tmp_path)
    assert (third.position, third.resume) == ({0: 5, 1: 2}, {0: 0, 1: 2})
    commit(third, 0, 3, bad=2)
    third.flush_rejects(threading.Event(), print)
    assert quarantined(tmp_path) == [3, 4]


def test_a_fenced_copy_does_not_set_the_mark_of_rejects_back(tmp_path: Path) -> None:
    """It still has rejects that its successor has read again and committed."""
    old, new = gathering(tmp_path), gathering(tmp_path)
    claim(old, [0, 1])
    commit(old, 0, 3, bad=2)
    claim(new, [0, 1])
    assert new.resume[0] == 0
    commit(new, 0, 3, bad=2)
    new.flush_rejects(threading.Event(), print)
    commit(new, 5, 1)
    with pytest.raises(Fenced):
        commit(old, 5, 1, bad=1)
    with pytest.raises(Fenced):
        old.flush_rejects(threading.Event(), print)
    last = gathering(tmp_path)
    assert (last.position[0], last.resume[0]) == (6, 6)
    assert (offsets(tmp_path), quarantined(tmp_path)) == ([0, 1, 2, 5], [3, 4])


def test_gathered_rejects_are_committed_in_time_and_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = BronzeStream(tmp_path, VEHICLE_POSITIONS, rejects_seconds=60)
    stream.load([0])
    commit(stream, 0, 1, bad=1)
    stream.flush_rejects(threading.Event(), print, due=True)
    assert row_count(quarantine_path(tmp_path, VEHICLE_POSITIONS)) == 0
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    stream.flush_rejects(threading.Event(), print, due=True)
    assert row_count(quarantine_path(tmp_path, VEHICLE_POSITIONS)) == 1
    monkeypatch.setattr(rejects_module, "_REJECTS", 3)
    commit(stream, 2, 0, bad=3)
    assert row_count(quarantine_path(tmp_path, VEHICLE_POSITIONS)) == 4


@pytest.mark.parametrize("seed", range(16))
def test_whenever_a_writer_is_killed_each_message_is_in_one_table_once(tmp_path: Path, seed: int) -> None:
    """Killed between any two commits, by a chance that the seed decides, while rejects are gathered or not; batches
    have messages of some of the partitions."""
    chance = random.Random(seed)
    total, partitions, stream = 30, (0, 1, 2), None
    while stream is None or any(at < total for at in stream.position.values()):
        if stream is None or chance.random() < 0.15:
            stream = BronzeStream(tmp_path, VEHICLE_POSITIONS, rejects_seconds=chance.choice([0.0, 1_000.0]))
            claim(stream, list(partitions))
            at = dict(stream.resume)
        some = [p for p in partitions if at[p] < total and chance.random() < 0.6]
        places = [(p, n) for p in some for n in range(at[p], min(at[p] + chance.randint(1, 6), total))]
        if not places:
            continue
        end = {p: n + 1 for p, n in places}
        messages = [b"{" if n % 3 == 0 else encode(position(trip_id=f"t{p}-{n}"))[0] for p, n in places]
        changed = replace(
            raw(messages, first=0),
            partitions=np.array([p for p, _ in places], np.int32),
            offsets=np.array([n for _, n in places], np.int64),
            start={p: at[p] for p in end},
            end=end,
        )
        rows, rejects = decode(VEHICLE_POSITIONS, changed, {})
        batch_of = Batch(rows, changed.start, changed.end)
        if chance.random() < 0.15:  # killed between quarantine and bronze
            stream._rejects.add(batch_of, rejects)
            stream.flush_rejects(threading.Event(), print)
            stream = None
            continue
        stream.commit(batch_of, rejects, {}, threading.Event(), print)
        at |= end
    while any(first < total for first in at.values()):  # what was killed last is read again
        places = [(p, n) for p in partitions for n in range(at[p], total)]
        messages = [b"{" if n % 3 == 0 else encode(position(trip_id=f"t{p}-{n}"))[0] for p, n in places]
        changed = replace(
            raw(messages, first=0),
            partitions=np.array([p for p, _ in places], np.int32),
            offsets=np.array([n for _, n in places], np.int64),
            start={p: at[p] for p, _ in places},
            end={p: total for p, _ in places},
        )
        rows, rejects = decode(VEHICLE_POSITIONS, changed, {})
        stream.commit(Batch(rows, changed.start, changed.end), rejects, {}, threading.Event(), print)
        at |= changed.end
    stream.flush_rejects(threading.Event(), print)
    bronze = pl.read_delta(str(bronze_path(tmp_path, VEHICLE_POSITIONS))).select("_partition", "_offset")
    rejected = pl.read_delta(str(quarantine_path(tmp_path, VEHICLE_POSITIONS))).select("partition", "offset")
    assert sorted(bronze.rows()) == [(p, n) for p in partitions for n in range(total) if n % 3]
    assert sorted(rejected.rows()) == [(p, n) for p in partitions for n in range(0, total, 3)]


def test_appends_go_on_through_a_compaction(tmp_path: Path) -> None:
    stream = opened(tmp_path)
    for first in range(4):
        commit(stream, first, 1)
    other = DeltaTable(stream.path)
    other.optimize.compact()
    other.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    commit(stream, 4, 1)
    assert offsets(tmp_path) == list(range(5))
    assert opened(tmp_path).position[0] == 5


def test_the_log_and_the_files_stay_few_however_long_a_writer_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit reads the log since its handle was opened, and lists its folder: neither may grow with the hours."""
    monkeypatch.setattr(module, "_CHECKPOINT_COMMITS", 10)
    monkeypatch.setattr(module, "_COMPACT_COMMITS", 80)
    stream = opened(tmp_path)
    short = {"delta.logRetentionDuration": "interval 0 seconds"}
    stream._bronze.table.alter.set_table_properties(short)
    commits = 2 * module._COMPACT_COMMITS + 1
    for first in range(commits):
        commit(stream, first, 1)
    log = [file for file in (stream.path / "_delta_log").iterdir() if file.suffix == ".json"]
    assert len(log) < 3 * module._CHECKPOINT_COMMITS
    assert len(DeltaTable(stream.path).file_uris()) < 2 * module._CHECKPOINT_COMMITS
    assert offsets(tmp_path) == list(range(commits))
    assert opened(tmp_path).position[0] == commits


def test_a_writer_that_opens_its_table_anew_is_fenced_off_all_the_same(tmp_path: Path) -> None:
    old, new = BronzeStream(tmp_path, VEHICLE_POSITIONS), BronzeStream(tmp_path, VEHICLE_POSITIONS)
    claim(old, [0])
    for first in range(module._CHECKPOINT_COMMITS - 1):
        commit(old, first, 1)
    claim(new, [0])
    old._bronze._commits += 1  # its next look at the table comes after the claim
    assert old._bronze._tidy(old._bronze.table) is old._bronze.table
    with pytest.raises(Fenced):
        commit(old, module._CHECKPOINT_COMMITS - 1, 1)
    commit(new, module._CHECKPOINT_COMMITS - 1, 1)
    assert offsets(tmp_path) == list(range(module._CHECKPOINT_COMMITS))


@pytest.mark.parametrize("commits", [2, 4])
def test_a_claim_that_comes_while_the_table_is_tidied_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """After the last commit before a checkpoint, or a compaction: neither may move the handle past the claim."""
    monkeypatch.setattr(module, "_CHECKPOINT_COMMITS", 2)
    monkeypatch.setattr(module, "_COMPACT_COMMITS", 4)
    old, new = BronzeStream(tmp_path, VEHICLE_POSITIONS), BronzeStream(tmp_path, VEHICLE_POSITIONS)
    claim(old, [0])
    for first in range(commits - 1):
        commit(old, first, 1)

    def write_then_claim(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(module, "write_deltalake", write_deltalake)
        write_deltalake(*args, **kwargs)
        claim(new, [0])

    monkeypatch.setattr(module, "write_deltalake", write_then_claim)
    commit(old, commits - 1, 1)
    with pytest.raises(Fenced):
        commit(old, commits, 1)
    commit(new, commits, 1)
    assert offsets(tmp_path) == list(range(commits + 1))


def test_a_check_that_cannot_read_the_table_leaves_the_claim_to_be_noticed_by_the_next_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = BronzeStream(tmp_path, VEHICLE_POSITIONS), BronzeStream(tmp_path, VEHICLE_POSITIONS)
    claim(old, [0])
    commit(old, 0, 1)
    claim(new, [0])

    def fail(*args: object) -> module.Standing:
        raise OSError("stale file handle")

    with monkeypatch.context() as broken:
        broken.setattr(old._bronze, "_read_standing", fail)
        old.check()
    with pytest.raises(Fenced):
        commit(old, 1, 1)
    commit(new, 1, 1)
    assert offsets(tmp_path) == [0, 1]


def test_of_two_claims_at_once_the_later_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other claim comes after ours, before our handle is brought up to it."""
    old, new = BronzeStream(tmp_path, VEHICLE_POSITIONS), BronzeStream(tmp_path, VEHICLE_POSITIONS)
    commit_transaction = DeltaTable.create_write_transaction

    def claim_twice(table: DeltaTable, *args: Any, **kwargs: Any) -> None:
        commit_transaction(table, *args, **kwargs)
        if table is old._bronze.table:
            claim(new, [0])

    monkeypatch.setattr(DeltaTable, "create_write_transaction", claim_twice)
    with pytest.raises(Fenced, match=r"claims \{0: 2\}"):
        claim(old, [0])
    commit(new, 0, 1)
    assert offsets(tmp_path) == [0]


def test_a_writer_that_slept_until_the_log_was_deleted_is_fenced_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its successor has deleted the log files that its commit would be compared with."""
    monkeypatch.setattr(module, "_CHECKPOINT_COMMITS", 5)
    old, new = BronzeStream(tmp_path, VEHICLE_POSITIONS), BronzeStream(tmp_path, VEHICLE_POSITIONS)
    old._bronze.table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
    claim(old, [0])
    commit(old, 0, 1)
    slept_at = old._bronze.table.version()
    claim(new, [0])
    for first in range(1, 12):
        commit(new, first, 1)
    assert not (old.path / "_delta_log" / f"{slept_at + 1:020}.json").exists()
    with pytest.raises(Fenced):
        commit(old, 1, 1)
    commit(new, 12, 1)
    assert offsets(tmp_path) == list(range(13))


def test_a_claim_of_another_partition_is_noticed_after_a_commit_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is opened anew for the commit's next attempt, which is of the partition that was not claimed."""
    old, new = BronzeStream(tmp_path, VEHICLE_POSITIONS), BronzeStream(tmp_path, VEHICLE_POSITIONS)
    claim(old, [0, 1])
    commit(old, 0, 1)

    def claim_then_fail(*args: object, **kwargs: object) -> None:
        monkeypatch.setattr(module, "write_deltalake", write_deltalake)
        claim(new, [1])
        raise OSError("connection lost")

    monkeypatch.setattr(module, "write_deltalake", claim_then_fail)
    with pytest.raises(Fenced, match=r"claims \{0: 1, 1: 2\}"):
        commit(old, 1, 1)
    assert offsets(tmp_path) == [0]


def test_a_claim_of_another_partition_is_noticed_by_a_commit_that_has_nothing_of_it(tmp_path: Path) -> None:
    """A copy that does not know of all partitions yet claims some of them: what it writes is not written again."""
    old, new = BronzeStream(tmp_path, VEHICLE_POSITIONS), BronzeStream(tmp_path, VEHICLE_POSITIONS)
    claim(old, [0, 1])
    claim(new, [0])
    commit(new, 0, 1)
    appended, rejects = batch(0, 1)
    other = Batch(appended.rows.with_columns(_partition=pl.lit(1, pl.Int32)), {1: 0}, {1: 1})
    with pytest.raises(Fenced, match=r"claims \{0: 2, 1: 1\}"):
        old.commit(other, rejects, {}, threading.Event(), print)
    assert offsets(tmp_path) == [0]


def test_the_topic_is_known_by_the_id_that_a_claim_recorded(tmp_path: Path) -> None:
    stream = opened(tmp_path)
    assert stream.topic_id() is None
    stream.claim([0], threading.Event(), lambda _: None, topic_id=2**62 + 1)
    assert opened(tmp_path).topic_id() == 2**62 + 1


def test_an_older_table_gets_the_configuration_of_today(tmp_path: Path) -> None:
    table = open_table(tmp_path / "t", {"a": pl.Int64()})
    wanted = table.metadata().configuration
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 1 days"})
    assert open_table(tmp_path / "t", {"a": pl.Int64()}).metadata().configuration == wanted


def fail_once_written(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None] = lambda: None) -> None:
    """Makes the next commit fail after it was written, and after `then`."""

    def write_then_fail(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(module, "write_deltalake", write_deltalake)
        write_deltalake(*args, **kwargs)
        then()
        raise OSError("connection lost")

    monkeypatch.setattr(module, "write_deltalake", write_then_fail)


def test_a_commit_that_failed_but_was_written_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = opened(tmp_path)
    fail_once_written(monkeypatch)
    assert commit(stream, 0, 3) == ["bronze vehicle_positions: connection lost"]
    commit(stream, 3, 1)
    assert offsets(tmp_path) == [0, 1, 2, 3]


def test_a_commit_that_was_written_is_recognised_though_an_erasure_has_cut_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = BronzeStream(tmp_path, VEHICLE_POSITIONS)
    claim(stream, [0])

    def cut() -> None:
        version = DeltaTable(stream.path).version()
        cut_log(stream.path)
        assert not (stream.path / "_delta_log" / f"{version:020}.json").exists()

    fail_once_written(monkeypatch, cut)
    assert commit(stream, 0, 3) == ["bronze vehicle_positions: connection lost"]
    commit(stream, 3, 1)
    assert offsets(tmp_path) == [0, 1, 2, 3]


def test_a_commit_goes_on_though_an_erasure_cuts_the_log_before_it_and_while_it_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = BronzeStream(tmp_path, VEHICLE_POSITIONS)
    claim(stream, [0])
    commit(stream, 0, 1)
    writer, cuts = stream._bronze, [1, 2]
    read = writer._read_standing

    def read_then_cut(*args: Any) -> Any:
        standing = read(*args)
        if cuts:
            cuts.pop()
            cut_log(stream.path)
        return standing

    monkeypatch.setattr(writer, "_read_standing", read_then_cut)
    cut_log(stream.path)
    failures = commit(stream, 1, 1)
    assert len(failures) == 3
    assert all("Invalid table version" in failure for failure in failures)
    commit(stream, 2, 1)
    assert offsets(tmp_path) == [0, 1, 2]


def test_another_s_commit_is_not_taken_for_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that claimed nothing carries the claim that it read."""
    owner = BronzeStream(tmp_path, VEHICLE_POSITIONS)
    claim(owner, [0, 1])
    other = opened(tmp_path)

    def fail(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(module, "write_deltalake", write_deltalake)
        commit(owner, 0, 3)
        raise OSError("connection lost")

    monkeypatch.setattr(module, "write_deltalake", fail)
    with pytest.raises(Fenced):
        commit(other, 0, 3)
    assert offsets(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize("starting", [False, True])
def test_a_full_disk_is_said_plainly_and_waited_for(tmp_path: Path, starting: bool) -> None:
    """On a real file system of one megabyte that is full; somebody frees it while the stream waits."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("a file system of one megabyte cannot be mounted here")
    try:
        stream = opened(disk)
        ballast = disk / "ballast"
        with pytest.raises(OSError, match="No space left"), ballast.open("wb") as file:
            file.write(b"x" * 2_000_000)
        failures: list[str] = []

        def failed(reason: str) -> None:
            failures.append(reason)
            if len(failures) == 2:
                ballast.unlink()

        if starting:
            stream.claim([0], threading.Event(), failed)
        else:
            stream.commit(*batch(0, 50), {}, threading.Event(), failed)
        assert all("the disk is full" in failure for failure in failures)
        assert len(failures) == 2
        assert offsets(disk) == ([] if starting else list(range(50)))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_stop_ends_the_wait_for_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, stop = opened(tmp_path), threading.Event()

    def fail(*args: object, **kwargs: object) -> None:
        stop.set()
        raise OSError("No space left on device (os error 28)")

    monkeypatch.setattr(module, "write_deltalake", fail)
    with pytest.raises(Stopped):
        stream.commit(*batch(0, 1), {}, stop, lambda _: None)


def test_a_table_of_other_columns_is_not_touched(tmp_path: Path) -> None:
    path = bronze_path(tmp_path, VEHICLE_POSITIONS)
    write_deltalake(path, pl.DataFrame({"speed": [1], "other": [2]}))
    with pytest.raises(ForeignTable) as error:
        BronzeStream(tmp_path, VEHICLE_POSITIONS)
    assert "unexpected columns ['other']" in str(error.value)
    assert "of another type ['speed']" in str(error.value)
    assert str(path) in str(error.value)


def test_many_creators_make_one_table(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def create() -> None:
        try:
            open_table(tmp_path / "t", {"a": pl.Int64()})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(daemon=True, target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert DeltaTable(tmp_path / "t").version() == 0


def test_a_range_is_read_back_in_batches(tmp_path: Path) -> None:
    stream = opened(tmp_path)
    for first in range(0, 50, 10):
        commit(stream, first, 10)
    batches = list(stream.read({0: 5}, {0: 42}, limit=20))
    assert [(b.start, b.end) for b in batches] == [({0: 5}, {0: 25}), ({0: 25}, {0: 42})]
    assert [offset for b in batches for offset in b.rows["_offset"]] == list(range(5, 42))
    assert batches[0].rows_after({0: 20})["_offset"].to_list() == list(range(20, 25))


def test_the_history_of_a_new_city_is_not_read_back_as_messages(tmp_path: Path) -> None:
    """A sink whose data was lost is at no position, and would load millions of rows at once."""
    stream = opened(tmp_path)
    append_day(tmp_path, VEHICLE_POSITIONS, date(2026, 4, 30), past(30))
    commit(stream, 0, 10)
    batches = list(stream.read({}, {0: 10}, limit=4))
    assert [offset for b in batches for offset in b.rows["_offset"]] == list(range(10))


def test_features_look_back_at_the_history_of_a_new_city(tmp_path: Path) -> None:
    """Also before the first message, when bronze has no watermark yet."""
    stream = opened(tmp_path)
    now = datetime.now(UTC)
    append_day(tmp_path, VEHICLE_POSITIONS, now.date(), past(30).with_columns(timestamp=pl.lit(now)))
    append_day(tmp_path, VEHICLE_POSITIONS, now.date() - timedelta(days=9), past(30))
    assert earlier_events(VEHICLE_POSITIONS, stream, stream.position).height == 30
    commit(stream, 0, 10)
    assert earlier_events(VEHICLE_POSITIONS, stream, stream.position, timedelta(days=9_000)).height == 70


def past(count: int) -> pl.DataFrame:
    """Events of a past day, as a simulator makes them."""
    begin = datetime(2026, 4, 30, 12, tzinfo=UTC)
    events = [position(timestamp=begin + timedelta(seconds=n), trip_id=f"h{n}") for n in range(count)]
    return pl.DataFrame(events)


def test_the_newest_rows_are_shown_first(tmp_path: Path) -> None:
    stream = opened(tmp_path)
    for first in range(5):
        commit(stream, first, 1)
    preview = preview_table(bronze_path(tmp_path, VEHICLE_POSITIONS), 3, ("_arrived", "_offset"))
    assert (preview.rows, preview.files, preview.frame["_offset"].to_list()) == (5, 5, [4, 3, 2])


def test_backoff_grows_and_ends_at_a_stop() -> None:
    stop = threading.Event()
    backoff = Backoff(stop, longest=0.3)
    for _ in range(3):
        backoff.wait()
    assert backoff._next == 0.3
    backoff.reset()
    assert backoff._next == 0.2
    stop.set()
    with pytest.raises(Stopped):
        backoff.wait()
