"""Writes bronze and quarantine to Delta exactly once. The stream resumes from the Delta log.

Each commit of rows carries an application transaction for each partition. The transaction's version is the next offset.
A writer keeps its handle of the table, so its commit fails when another process has meanwhile committed to the same
partition or claimed it. The writer is then `Fenced` and must stop.

Quarantine has transactions of its own. It is ahead of bronze when a crash came between the two commits. It is behind
bronze while rejects wait, because the few rejects of many batches are committed together. Bronze's log then records the
offset from which Kafka has to be read again. Rows that either table already has are not written again.
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
"""The number of commits between two checkpoints. At each commit a handle reads the log from the version at which it was
opened, and lists the log's whole folder. So the writer creates a checkpoint after this many commits, opens the table
again from it, and deletes expired log files."""
_COMPACT_COMMITS = 8 * _CHECKPOINT_COMMITS
_COMPACTED_BYTES = 16 << 20  # small, so that compaction rewrites few bytes; maintenance writes larger files
_REJECTS = 1_000
"""The number of rejects that are committed at once, however long they have waited."""
_NONE_WAIT = 2**62
# The writer runs these steps itself, in a place where their failure does not look like a failed commit.
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

Standing = dict[int, tuple[int | None, int | None]]
"""For each partition: its position in a table's log, and the number of its last claim."""


class Fenced(RuntimeError):
    """Another process has taken over a partition of this stream. This process wrote nothing of it and must stop."""


def writer_properties(contract: Contract) -> WriterProperties:
    """Returns the Parquet settings of bronze.

    Columns in which few values repeat have no dictionary, and the statistics are for whole files. A write takes half
    the time of the defaults and a tenth more bytes. Compaction removes the extra bytes.
    """
    repeating = {*symbols(contract), "_partition"}
    plain = {name: ColumnProperties(dictionary_enabled=False) for name in bronze_schema(contract).keys() - repeating}
    return WriterProperties(compression="LZ4_RAW", column_properties=plain)


class BronzeStream:
    """Writes one contract's bronze and quarantine tables, as the single writer of its partitions.

    `job` names the stream in the transactions. A replica that owns other partitions has the same job. Rejects are
    gathered for `rejects_seconds`; with 0 they are committed with their batch.
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
        # The standing of each handle, from this writer's own reads and commits. A query of the handle reads the log
        # back to its last checkpoint for each partition, which costs more than the commit itself.
        self._standings: dict[str, Standing] = {}
        self._commits: dict[str, int] = {}
        self._rejects = _Rejects(rejects_seconds)
        self.position: Offsets = {}
        self.resume: Offsets = {}
        """The offsets to read Kafka from: before `position` where rejects were not committed yet."""
        self.watermarks: Offsets = {}

    def load(self, partitions: list[int]) -> Offsets:
        """Reads the next offset of each partition, and its watermark, from bronze's log. Returns the offsets."""
        self._standings = {}
        self.position = {p: at or 0 for p, (at, _) in self._cached_standing(self._bronze, partitions).items()}
        versions = {p: self._read_version(self._bronze, p, "watermark") for p in partitions}
        self.watermarks = {p: version for p, version in versions.items() if version is not None}
        waiting = {p: self._read_version(self._bronze, p, "rejects") for p in partitions}
        # Rejects that waited at the last commit to bronze may have been committed since.
        since = {
            p: max(at or 0, waiting[p] or 0)
            for p, (at, _) in self._cached_standing(self._quarantine, partitions).items()
        }
        self.resume = {p: at if waiting[p] is None else min(at, since[p]) for p, at in self.position.items()}
        self._rejects.begin(self.resume, self.position)
        return self.position

    def topic_id(self) -> int | None:
        """Returns the id of the Kafka topic that the rows came from (see `claim`), or None where none was recorded."""
        version = self._bronze.transaction_version(f"{self._app}/topic_id")
        return int(version) if version is not None else None

    def claim(
        self,
        partitions: list[int],
        stop: threading.Event,
        failed: Callable[[str], None],
        topic_id: int | None = None,
    ) -> Offsets:
        """Claims the partitions, then loads as `load` does.

        After the claim no earlier writer can commit, so the newest copy of a stream is the one that continues. The
        claim records 63 bits of the topic's id, which later distinguish it from another topic of the same name.

        Retries as `commit` does. Raises Stopped when `stop` is set while it waits.
        """
        # The order of the commits: a predecessor stops before its next quarantine, or between quarantine and bronze.
        self._quarantine = self._claim_table(self._quarantine, partitions, stop, failed, topic_id)
        self._bronze = self._claim_table(self._bronze, partitions, stop, failed, topic_id)
        return self.load(partitions)

    def check(self) -> None:
        """Raises Fenced when another process has taken over. A writer that has nothing to commit calls this."""
        expected = self._cached_standing(self._bronze, list(self.position))
        try:
            actual = self._read_standing(DeltaTable(self._bronze.table_uri), list(self.position))
        except Exception as error:  # storage is away: the next commit waits for it, and reports it
            log.debug("cannot read %s: %s", self.path, error)
            return
        if actual != expected:
            raise self._fenced_error(expected, actual)

    def sink_position(self, sink: str) -> Offsets:
        """Returns the position that the last commits recorded for a sink (see `commit`)."""
        return {p: self._read_version(self._bronze, p, sink) or 0 for p in self.position}

    def commit(
        self,
        batch: Batch,
        rejects: pl.DataFrame,
        sinks: dict[str, Offsets],
        stop: threading.Event,
        failed: Callable[[str], None],
    ) -> Batch:
        """Commits the batch, and with it the positions that sinks have reached. Returns the new part of the batch.

        Retries with backoff for as long as storage fails, and calls `failed` with the reason. Raises Fenced when
        another process owns a partition, and Stopped when `stop` is set while it waits.
        """
        self._rejects.add(batch, rejects)
        if self._rejects.are_due():
            self.flush_rejects(stop, failed)
        batch = self._new_part(batch)
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
        self._bronze = self._commit_rows(self._bronze, batch.rows, transactions, batch, stop, failed)
        self._rejects.recorded = waiting
        self.position = self.position | batch.end
        self.watermarks = self.watermarks | watermarks
        return batch

    def flush_rejects(self, stop: threading.Event, failed: Callable[[str], None], due: bool = False) -> None:
        """Commits the rejects that were gathered; with `due` only where they have waited long enough.

        Raises as `commit` does.
        """
        if not self._rejects.waiting or (due and not self._rejects.are_due()):
            return
        self._commit_rejects(*self._rejects.merged(), stop, failed)
        self._rejects.waiting = []

    def _new_part(self, batch: Batch) -> Batch:
        """Returns the part of a batch that bronze does not have.

        That is all of the batch, except a range that was read again for its rejects.
        """
        if all(first >= self.position.get(p, 0) for p, first in batch.start.items()):
            return batch
        end = {p: last for p, last in batch.end.items() if last > self.position.get(p, 0)}
        start = {p: max(first, self.position.get(p, 0)) for p, first in batch.start.items() if p in end}
        rows = batch.rows.filter(beyond(self.position), pl.col("_partition").is_in(list(end)))
        return Batch(rows, start, end, batch.polled)

    def read(self, after: Offsets, until: Offsets, limit: int) -> Iterator[Batch]:
        """Yields the bronze rows of [after, until), in batches of at most `limit` offsets a partition."""
        position = dict(after)
        while behind(position, until):
            end = {p: max(position.get(p, 0), min(position.get(p, 0) + limit, last)) for p, last in until.items()}
            rows = scan(self.path).filter(beyond(position) & before(end)).sort("_partition", "_offset").collect()
            yield Batch(rows, {p: position.get(p, 0) for p in end}, end)
            position = end

    def _claim_table(
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
                # The claim repeats the position, so that it and a commit of another writer exclude each other.
                standing = self._read_standing(table, partitions)
                marks = [Transaction(f"{self._app}/{p}", at or 0) for p, (at, _) in standing.items()]
                marks += [Transaction(f"{self._app}/{p}/claim", (last or 0) + 1) for p, (_, last) in standing.items()]
                if topic_id is not None:
                    marks.append(Transaction(f"{self._app}/topic_id", topic_id))
                table.create_write_transaction(
                    [], "append", table.schema(), commit_properties=self._commit_properties(marks)
                )
                table.update_incremental()
                claimed: Standing = {p: (at or 0, (last or 0) + 1) for p, (at, last) in standing.items()}
                if (actual := self._read_standing(table, partitions)) != claimed:
                    raise self._fenced_error(claimed, actual)
                return table
            except Fenced:
                raise
            except Exception as error:  # the predecessor has committed meanwhile, or storage fails
                failed(f"bronze {self.contract.name}: {_describe_error(error)}")
                backoff.wait()

    def _commit_rejects(
        self, batch: Batch, rejects: pl.DataFrame, stop: threading.Event, failed: Callable[[str], None]
    ) -> None:
        position = {p: at or 0 for p, (at, _) in self._cached_standing(self._quarantine, list(batch.end)).items()}
        fresh = rejects.filter(beyond(position, partition="partition", offset="offset"))
        if fresh.is_empty():
            return
        ends = {p: max(end, position[p]) for p, end in batch.end.items()}
        transactions = [Transaction(f"{self._app}/{p}", end) for p, end in ends.items()]
        self._quarantine = self._commit_rows(self._quarantine, fresh, transactions, batch, stop, failed)

    def _commit_rows(
        self,
        table: DeltaTable,
        rows: pl.DataFrame,
        transactions: list[Transaction],
        batch: Batch,
        stop: threading.Event,
        failed: Callable[[str], None],
    ) -> DeltaTable:
        # Each commit carries this writer's claims of all partitions, also of those that the batch has no rows of, so
        # it excludes any other claim. Otherwise it would succeed after another writer claimed one of those partitions,
        # and would move this handle past that claim.
        expected = self._cached_standing(table, sorted(self.position.keys() | batch.end.keys()))
        written: Standing = expected | {
            p: (t.version, expected[p][1]) for p, t in zip(batch.end, transactions, strict=False)
        }
        claims = [Transaction(f"{self._app}/{p}/claim", n) for p, (_, n) in expected.items() if n is not None]
        properties = self._commit_properties([*transactions, *claims])
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
                return self._tidy_table(table)
            except Exception as error:  # storage raises errors of many types, and each of them must be retried
                failed(f"bronze {self.contract.name}: {_describe_error(error)}")
                log.warning("commit to %s failed: %s", table.table_uri, error)
                table = self._reload_table(table, expected, written, backoff)
                if self._read_standing(table, list(written)) == written:
                    self._standings[table.table_uri] |= written
                    return table

    def _tidy_table(self, table: DeltaTable) -> DeltaTable:
        """Compacts the table and shortens its log every so many commits, and returns a new handle.

        Returns the same handle where nothing is due, and where another writer has committed meanwhile.
        """
        uri = table.table_uri
        self._commits[uri] = self._commits.get(uri, 0) + 1
        if self._commits[uri] % _CHECKPOINT_COMMITS:
            return table
        # The handle itself is never updated: its commit fails after another writer's commit because the handle is old.
        try:
            if self._commits[uri] % _COMPACT_COMMITS == 0:
                DeltaTable(uri).optimize.compact(target_size=_COMPACTED_BYTES)
            newest = DeltaTable(uri)
            newest.create_checkpoint()
            newest.cleanup_metadata()
            fresh = DeltaTable(uri)
            standing = self._standings[uri]
            return fresh if self._read_standing(fresh, list(standing)) == standing else table
        except Exception as error:  # the commit itself has succeeded: the tidying can wait until the next time
            log.warning("%s cannot be tidied: %s", uri, error)
            return table

    def _reload_table(self, table: DeltaTable, expected: Standing, written: Standing, backoff: Backoff) -> DeltaTable:
        """Opens the table again after a failed commit. Raises Fenced when another writer moved a partition."""
        while True:
            try:
                table = DeltaTable(table.table_uri)
                actual = self._read_standing(table, list(expected))
                if actual == expected or (actual == written and self._has_own_commit(table)):
                    if actual == expected:
                        backoff.wait()
                    return table
                raise self._fenced_error(expected, actual)
            except (Fenced, Stopped):
                raise
            except Exception as error:  # storage is still away
                log.warning("cannot read %s: %s", table.table_uri, error)
                backoff.wait()

    def _fenced_error(self, expected: Standing, actual: Standing) -> Fenced:
        at, claims = ({p: standing[n] for p, standing in actual.items()} for n in (0, 1))
        return Fenced(
            f"another process now writes {self.contract.topic}: expected to continue at "
            f"{ {p: position for p, (position, _) in expected.items()} }, found {at}, claims {claims}. "
            "This copy stops, and nothing is lost."
        )

    def _cached_standing(self, table: DeltaTable, partitions: list[int]) -> Standing:
        """Returns the handle's standing from memory. The first call for a partition reads it from the log.

        A commit of another writer that changes it makes this writer's next commit fail, so it is never read again.
        """
        standing = self._standings.setdefault(table.table_uri, {})
        if missing := [p for p in partitions if p not in standing]:
            standing |= self._read_standing(table, missing)
        return {p: standing[p] for p in partitions}

    def _read_standing(self, table: DeltaTable, partitions: list[int]) -> Standing:
        """Reads the standing of the partitions from the table's log."""
        return {p: (self._read_version(table, p), self._read_version(table, p, "claim")) for p in partitions}

    def _commit_properties(self, transactions: list[Transaction]) -> CommitProperties:
        return CommitProperties(app_transactions=transactions, custom_metadata={"writer": self._writer})

    def _has_own_commit(self, table: DeltaTable) -> bool:
        """Returns whether the commit that failed was written after all (delta-io/delta-rs#2609)."""
        return any(entry.get("writer") == self._writer for entry in table.history(limit=5))

    def _read_version(self, table: DeltaTable, partition: int, name: str = "") -> int | None:
        return table.transaction_version(f"{self._app}/{partition}" + (f"/{name}" if name else ""))


class _Rejects:
    """Gathers rejects that wait to be committed together."""

    def __init__(self, seconds: float) -> None:
        self.waiting: list[tuple[Batch, pl.DataFrame]] = []
        self.recorded: Offsets | None = None
        """The offsets of waiting rejects that bronze's log has recorded; None where they are not known."""
        self._seconds, self._began = seconds, 0.0
        self._again: Offsets = {}
        self._until: Offsets = {}

    def begin(self, resume: Offsets, position: Offsets) -> None:
        """Starts with no rejects. The ranges from `resume` to `position` are still to be read again."""
        self.waiting, self.recorded = [], None
        self._again = {p: at for p, at in resume.items() if at < position[p]}
        self._until = dict(position)

    def add(self, batch: Batch, rejects: pl.DataFrame) -> None:
        """Adds the rejects of a batch, and notes how far each partition has been read again."""
        for partition in self._again.keys() & batch.end.keys():
            self._again[partition] = batch.end[partition]
            if self._again[partition] >= self._until[partition]:
                del self._again[partition]
        if rejects.is_empty():
            return
        if not self.waiting:
            self._began = time.monotonic()
        self.waiting.append((batch, rejects))

    def are_due(self) -> bool:
        """Returns whether enough rejects wait, or have waited long enough."""
        rows = sum(rejects.height for _, rejects in self.waiting)
        return bool(self.waiting) and (rows >= _REJECTS or time.monotonic() - self._began >= self._seconds)

    def since(self) -> Offsets:
        """Returns, for each partition with waiting rejects, the first offset to commit or to read again."""
        starts: Offsets = {}
        for batch, _ in self.waiting:
            starts = batch.start | starts
        return self._again | starts

    def merged(self) -> tuple[Batch, pl.DataFrame]:
        """Returns the offset range of all waiting rejects (a batch without rows), and the rejects."""
        start: Offsets = {}
        end: Offsets = {}
        for batch, _ in self.waiting:
            start, end = batch.start | start, end | batch.end
        return Batch(self.waiting[0][0].rows.head(0), start, end), pl.concat([r for _, r in self.waiting])


def watermarks_after(rows: pl.DataFrame) -> Offsets:
    """Returns each partition's watermark after these rows, in microseconds since the epoch."""
    newest = rows.group_by("_partition").agg(pl.col("_watermark").max().dt.epoch("us"))
    return dict(newest.iter_rows())


def scan(path: Path) -> pl.LazyFrame:
    """Scans the Delta table at `path` lazily."""
    return pl.scan_delta(str(path))


def _describe_error(error: Any) -> str:
    text = str(error).strip().splitlines()
    first = text[0] if text else type(error).__name__
    if "os error 28" in str(error) or "No space left" in str(error):
        return f"the disk is full: {first}; free some space, the stream goes on by itself"
    return first[:300]
