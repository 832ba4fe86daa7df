"""Bronze and quarantine in Delta, exactly once: the Delta log is where the stream resumes.

Each commit of rows carries, for each partition, an application transaction whose version is the next offset. A
writer keeps its handle of the table, so a commit fails when another process has meanwhile moved the same partition, or
claimed it: then it is `Fenced` and must stop. Quarantine has transactions of its own. It may be ahead of bronze, where
a crash came in between, and behind it, since the few rejects of many batches are committed together: bronze's log then
says from where Kafka has to be read again. What either table already has is left out.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)

from city.contracts.model import Contract
from city.contracts.questdb import symbols
from city.contracts.schema import LINEAGE, QUARANTINE, bronze_schema
from city.lake import bronze_path, quarantine_path
from city.lake.tables import open_table
from city.stack.backoff import Backoff, Stopped
from city.streaming.records import Batch, Offsets, before, behind, beyond

log = logging.getLogger(__name__)

_CHECKPOINT_COMMITS = 25
"""A handle reads the log from where it was opened at each commit, and lists the log's whole folder: after so many
commits it is opened anew, from a checkpoint, and expired log files are deleted."""
_COMPACT_COMMITS = 8 * _CHECKPOINT_COMMITS
_COMPACTED_BYTES = 16 << 20  # small enough that little is written again and again; maintenance makes larger ones
_REJECTS = 1_000
"""So many rejects are committed at once, however long they have waited."""
_NONE_WAIT = 2**62
# We do it ourselves, where a failure cannot be taken for one of the commit.
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

Standing = dict[int, tuple[int | None, int | None]]
"""For each partition its position in a table's log, and the number of its last claim."""


class Fenced(RuntimeError):
    """Another process has taken over a partition of this stream; this one wrote nothing of it and must stop."""


def writer_properties(contract: Contract) -> WriterProperties:
    """Half the time of the defaults for a tenth more bytes, which compaction takes back: no dictionary for columns
    in which few values repeat, statistics for whole files."""
    repeating = {*symbols(contract), "_partition"}
    plain = {name: ColumnProperties(dictionary_enabled=False) for name in bronze_schema(contract).keys() - repeating}
    return WriterProperties(compression="LZ4_RAW", column_properties=plain)


class BronzeStream:
    """One contract's bronze and quarantine tables, as the single writer of its partitions.

    `job` names the stream in the transactions; a replica that owns other partitions has the same job. Rejects are
    gathered for `rejects_seconds`, 0 to commit them with their batch.
    """

    def __init__(self, lake: Path, contract: Contract, job: str = "stream", rejects_seconds: float = 0.0) -> None:
        self.contract = contract
        self.path = bronze_path(lake, contract)
        self._app = f"{job}/{contract.topic}"
        self._writer = uuid.uuid4().hex
        self._properties = writer_properties(contract)
        schema = bronze_schema(contract)
        may_add = schema.keys() - LINEAGE.keys() - {contract.key, contract.event_time}
        self._bronze = open_table(self.path, schema, may_add=may_add)
        self._quarantine = open_table(quarantine_path(lake, contract), QUARANTINE)
        # What the handles stand at, by our own reading and commits: asking the handle reads the log back to its
        # last checkpoint, for each partition, which costs more than the commit itself.
        self._standings: dict[str, Standing] = {}
        self._commits: dict[str, int] = {}
        self._rejects = _Rejects(rejects_seconds)
        self.position: Offsets = {}
        self.resume: Offsets = {}
        """Where Kafka is to be read from: before `position` where rejects were not committed yet."""
        self.watermarks: Offsets = {}

    def load(self, partitions: list[int]) -> Offsets:
        """Reads where bronze stands: the next offset of each partition, and its watermark."""
        self._standings = {}
        self.position = {p: at or 0 for p, (at, _) in self._held(self._bronze, partitions).items()}
        known = {p: self._version(self._bronze, p, "watermark") for p in partitions}
        self.watermarks = {p: version for p, version in known.items() if version is not None}
        waiting = {p: self._version(self._bronze, p, "rejects") for p in partitions}
        # What waited when bronze was last committed to may have been committed since.
        since = {p: max(at or 0, waiting[p] or 0) for p, (at, _) in self._held(self._quarantine, partitions).items()}
        self.resume = {p: at if waiting[p] is None else min(at, since[p]) for p, at in self.position.items()}
        self._rejects.begin(self.resume, self.position)
        return self.position

    def topic_id(self) -> int | None:
        """The id of the Kafka topic that the rows came from (see `claim`); None where none was recorded."""
        found = self._bronze.transaction_version(f"{self._app}/topic_id")
        return int(found) if found is not None else None

    def claim(
        self,
        partitions: list[int],
        stop: threading.Event,
        failed: Callable[[str], None],
        topic_id: int | None = None,
    ) -> Offsets:
        """As `load`, and from here on no writer from before can commit: the newest copy of a stream is the one that
        goes on. Records the topic's id, 63 bits of it, by which a topic of the same name is told apart later.

        Retries as `commit` does; raises Stopped when `stop` is set while it waits."""
        # As they are committed to: a predecessor is stopped before its next quarantine, or between that and bronze.
        self._quarantine = self._claimed(self._quarantine, partitions, stop, failed, topic_id)
        self._bronze = self._claimed(self._bronze, partitions, stop, failed, topic_id)
        return self.load(partitions)

    def check(self) -> None:
        """Raises Fenced when another process has taken over: a writer that has nothing to commit learns it so."""
        held = self._held(self._bronze, list(self.position))
        try:
            found = self._standing(DeltaTable(self._bronze.table_uri), list(self.position))
        except Exception as error:  # storage is away: the next commit waits for it, and says so
            log.debug("cannot read %s: %s", self.path, error)
            return
        if found != held:
            raise self._fenced(held, found)

    def sink_position(self, sink: str) -> Offsets:
        """The position that the last commits recorded for a sink (see `commit`)."""
        return {p: self._version(self._bronze, p, sink) or 0 for p in self.position}

    def commit(
        self,
        batch: Batch,
        rejects: pl.DataFrame,
        sinks: dict[str, Offsets],
        stop: threading.Event,
        failed: Callable[[str], None],
    ) -> Batch:
        """Commits the batch, and with it the positions that sinks have reached. Gives what was new of it.

        Retries with backoff for as long as storage fails, telling `failed` why. Raises Fenced when another process
        owns a partition, Stopped when `stop` is set while it waits.
        """
        self._rejects.add(batch, rejects)
        if self._rejects.are_due():
            self.flush_rejects(stop, failed)
        batch = self._fresh(batch)
        if not batch.end:
            return batch
        watermarks = watermarks_after(batch.rows)
        transactions = [Transaction(f"{self._app}/{p}", end) for p, end in batch.end.items()]
        transactions += [Transaction(f"{self._app}/{p}/watermark", at) for p, at in watermarks.items()]
        for sink, position in sinks.items():
            transactions += [Transaction(f"{self._app}/{p}/{sink}", offset) for p, offset in position.items()]
        waiting = self._rejects.since()
        if waiting != self._rejects.recorded:
            marks = dict.fromkeys(self.position, _NONE_WAIT) | waiting
            transactions += [Transaction(f"{self._app}/{p}/rejects", offset) for p, offset in marks.items()]
        self._bronze = self._commit(self._bronze, batch.rows, transactions, batch, stop, failed)
        self._rejects.recorded = waiting
        self.position = self.position | batch.end
        self.watermarks = self.watermarks | watermarks
        return batch

    def flush_rejects(self, stop: threading.Event, failed: Callable[[str], None], due: bool = False) -> None:
        """Commits the rejects that were gathered; with `due` only where they have been for long enough. Raises as
        `commit` does."""
        if not self._rejects.held or (due and not self._rejects.are_due()):
            return
        self._commit_rejects(*self._rejects.merged(), stop, failed)
        self._rejects.held = []

    def _fresh(self, batch: Batch) -> Batch:
        """What bronze does not have of a batch: all of it, but for a range that was read again for its rejects."""
        if all(first >= self.position.get(p, 0) for p, first in batch.start.items()):
            return batch
        end = {p: last for p, last in batch.end.items() if last > self.position.get(p, 0)}
        start = {p: max(first, self.position.get(p, 0)) for p, first in batch.start.items() if p in end}
        rows = batch.rows.filter(beyond(self.position), pl.col("_partition").is_in(list(end)))
        return Batch(rows, start, end, batch.polled)

    def read(self, after: Offsets, until: Offsets, limit: int) -> Iterator[Batch]:
        """Bronze rows of [after, until), in batches of at most `limit` offsets a partition."""
        position = dict(after)
        while behind(position, until):
            end = {p: max(position.get(p, 0), min(position.get(p, 0) + limit, last)) for p, last in until.items()}
            rows = scan(self.path).filter(beyond(position) & before(end)).sort("_partition", "_offset").collect()
            yield Batch(rows, {p: position.get(p, 0) for p in end}, end)
            position = end

    def _claimed(
        self,
        table: DeltaTable,
        partitions: list[int],
        stop: threading.Event,
        failed: Callable[[str], None],
        topic_id: int | None,
    ) -> DeltaTable:
        backoff = Backoff(stop)
        while True:
            try:
                table.update_incremental()
                # The position stands there again, so that a commit of another writer and this claim exclude each other.
                standing = self._standing(table, partitions)
                marks = [Transaction(f"{self._app}/{p}", at or 0) for p, (at, _) in standing.items()]
                marks += [Transaction(f"{self._app}/{p}/claim", (last or 0) + 1) for p, (_, last) in standing.items()]
                if topic_id is not None:
                    marks.append(Transaction(f"{self._app}/topic_id", topic_id))
                table.create_write_transaction(
                    [], "append", table.schema(), commit_properties=self._properties_of(marks)
                )
                table.update_incremental()
                claimed: Standing = {p: (at or 0, (last or 0) + 1) for p, (at, last) in standing.items()}
                if (found := self._standing(table, partitions)) != claimed:
                    raise self._fenced(claimed, found)
                return table
            except Fenced:
                raise
            except Exception as error:  # the predecessor has committed meanwhile, or storage fails
                failed(f"bronze {self.contract.name}: {_plain(error)}")
                backoff.wait()

    def _commit_rejects(
        self, batch: Batch, rejects: pl.DataFrame, stop: threading.Event, failed: Callable[[str], None]
    ) -> None:
        held = {p: at or 0 for p, (at, _) in self._held(self._quarantine, list(batch.end)).items()}
        fresh = rejects.filter(beyond(held, partition="partition", offset="offset"))
        if fresh.is_empty():
            return
        ends = {p: max(end, held[p]) for p, end in batch.end.items()}
        transactions = [Transaction(f"{self._app}/{p}", end) for p, end in ends.items()]
        self._quarantine = self._commit(self._quarantine, fresh, transactions, batch, stop, failed)

    def _commit(
        self,
        table: DeltaTable,
        rows: pl.DataFrame,
        transactions: list[Transaction],
        batch: Batch,
        stop: threading.Event,
        failed: Callable[[str], None],
    ) -> DeltaTable:
        # Of all partitions, also those that the batch has nothing of: else this commit would pass a claim of one of
        # those, and take our handle past it. So each commit has all our claims, and excludes any other claim.
        expected = self._held(table, sorted(self.position.keys() | batch.end.keys()))
        written: Standing = expected | {
            p: (t.version, expected[p][1]) for p, t in zip(batch.end, transactions, strict=False)
        }
        claims = [Transaction(f"{self._app}/{p}/claim", n) for p, (_, n) in expected.items() if n is not None]
        properties = self._properties_of([*transactions, *claims])
        backoff = Backoff(stop)
        while True:
            try:
                write_deltalake(
                    table,
                    rows,
                    mode="append",
                    commit_properties=properties,
                    writer_properties=self._properties,
                    post_commithook_properties=_NO_HOOKS,
                )
                self._standings[table.table_uri] |= written
                return self._tidied(table)
            except Exception as error:  # storage fails in many types, and each of them must be retried
                failed(f"bronze {self.contract.name}: {_plain(error)}")
                log.warning("commit to %s failed: %s", table.table_uri, error)
                table = self._reload(table, expected, written, backoff)
                if self._standing(table, list(written)) == written:
                    self._standings[table.table_uri] |= written
                    return table

    def _tidied(self, table: DeltaTable) -> DeltaTable:
        """The table with a short log and few small files, every so many commits; the same handle otherwise."""
        uri = table.table_uri
        self._commits[uri] = self._commits.get(uri, 0) + 1
        if self._commits[uri] % _CHECKPOINT_COMMITS:
            return table
        # The handle itself never moves: it is by being old that its commit fails where another writer has come.
        try:
            if self._commits[uri] % _COMPACT_COMMITS == 0:
                DeltaTable(uri).optimize.compact(target_size=_COMPACTED_BYTES)
            newest = DeltaTable(uri)
            newest.create_checkpoint()
            newest.cleanup_metadata()
            fresh = DeltaTable(uri)
            known = self._standings[uri]
            return fresh if self._standing(fresh, list(known)) == known else table
        except Exception as error:  # what is committed is committed: the next time will do
            log.warning("%s cannot be tidied: %s", uri, error)
            return table

    def _reload(self, table: DeltaTable, expected: Standing, written: Standing, backoff: Backoff) -> DeltaTable:
        """The table as it stands after a failed commit. Raises Fenced when another writer moved a partition."""
        while True:
            try:
                table = DeltaTable(table.table_uri)
                found = self._standing(table, list(expected))
                if found == expected or (found == written and self._is_mine(table)):
                    if found == expected:
                        backoff.wait()
                    return table
                raise self._fenced(expected, found)
            except (Fenced, Stopped):
                raise
            except Exception as error:  # storage is still away
                log.warning("cannot read %s: %s", table.table_uri, error)
                backoff.wait()

    def _fenced(self, expected: Standing, found: Standing) -> Fenced:
        at, claims = ({p: standing[n] for p, standing in found.items()} for n in (0, 1))
        return Fenced(
            f"another process now writes {self.contract.topic}: expected to continue at "
            f"{ {p: position for p, (position, _) in expected.items()} }, found {at}, claims {claims}. "
            "This copy stops, and nothing is lost."
        )

    def _held(self, table: DeltaTable, partitions: list[int]) -> Standing:
        """Where the handle stands, from memory; read from the log where this is the first time. Commits of others
        that move it make our next commit fail, so it never needs to be read again."""
        known = self._standings.setdefault(table.table_uri, {})
        if fresh := [p for p in partitions if p not in known]:
            known |= self._standing(table, fresh)
        return {p: known[p] for p in partitions}

    def _standing(self, table: DeltaTable, partitions: list[int]) -> Standing:
        return {p: (self._version(table, p), self._version(table, p, "claim")) for p in partitions}

    def _properties_of(self, transactions: list[Transaction]) -> CommitProperties:
        return CommitProperties(app_transactions=transactions, custom_metadata={"writer": self._writer})

    def _is_mine(self, table: DeltaTable) -> bool:
        """Whether the commit that failed was written after all (delta-io/delta-rs#2609)."""
        return any(entry.get("writer") == self._writer for entry in table.history(limit=5))

    def _version(self, table: DeltaTable, partition: int, what: str = "") -> int | None:
        return table.transaction_version(f"{self._app}/{partition}" + (f"/{what}" if what else ""))


class _Rejects:
    """Rejects that wait to be committed together."""

    def __init__(self, seconds: float) -> None:
        self.held: list[tuple[Batch, pl.DataFrame]] = []
        self.recorded: Offsets | None = None
        """What bronze's log says of them; None where that is not known."""
        self._seconds, self._began = seconds, 0.0
        self._again: Offsets = {}
        self._until: Offsets = {}

    def begin(self, resume: Offsets, position: Offsets) -> None:
        """Nothing is held; the ranges from `resume` to `position` are still to be read again."""
        self.held, self.recorded = [], None
        self._again = {p: at for p, at in resume.items() if at < position[p]}
        self._until = dict(position)

    def add(self, batch: Batch, rejects: pl.DataFrame) -> None:
        """Takes the rejects of a batch, and notes how far each partition has been read again."""
        for partition in self._again.keys() & batch.end.keys():
            self._again[partition] = batch.end[partition]
            if self._again[partition] >= self._until[partition]:
                del self._again[partition]
        if rejects.is_empty():
            return
        if not self.held:
            self._began = time.monotonic()
        self.held.append((batch, rejects))

    def are_due(self) -> bool:
        rows = sum(rejects.height for _, rejects in self.held)
        return bool(self.held) and (rows >= _REJECTS or time.monotonic() - self._began >= self._seconds)

    def since(self) -> Offsets:
        """From which offset of each partition on some wait, to be committed or to be read again."""
        found: Offsets = {}
        for batch, _ in self.held:
            found = batch.start | found
        return self._again | found

    def merged(self) -> tuple[Batch, pl.DataFrame]:
        """The offset range of all of them, and they."""
        start: Offsets = {}
        end: Offsets = {}
        for batch, _ in self.held:
            start, end = batch.start | start, end | batch.end
        return Batch(self.held[0][0].rows.head(0), start, end), pl.concat([r for _, r in self.held])


def watermarks_after(rows: pl.DataFrame) -> Offsets:
    """Each partition's watermark after these rows, in microseconds since the epoch."""
    newest = rows.group_by("_partition").agg(pl.col("_watermark").max().dt.epoch("us"))
    return dict(newest.iter_rows())


def scan(path: Path) -> pl.LazyFrame:
    return pl.scan_delta(str(path))


def _plain(error: Any) -> str:
    text = str(error).strip().splitlines()
    first = text[0] if text else type(error).__name__
    if "os error 28" in str(error) or "No space left" in str(error):
        return f"the disk is full: {first}; free some space, the stream goes on by itself"
    return first[:300]
