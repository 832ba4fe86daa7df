"""Writes bronze and quarantine to Delta exactly once. The stream resumes from the Delta log.

Each commit of rows carries the next offsets as transactions, and excludes other writers
(`city.streaming.table_writer`).

Quarantine has transactions of its own. It is ahead of bronze when a crash came between the two commits. It is behind
bronze while rejects wait, because the few rejects of many batches are committed together. Bronze's log then records the
offset from which Kafka has to be read again. Rows that either table already has are not written again.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
from deltalake import ColumnProperties, WriterProperties

from city.contracts.model import Contract
from city.contracts.questdb import symbols
from city.contracts.schema import LINEAGE, QUARANTINE, bronze_schema, is_history
from city.lake import bronze_path, quarantine_path
from city.lake.tables import open_table
from city.streaming.records import Batch, Offsets, below_position, from_position, is_behind
from city.streaming.rejects import Rejects
from city.streaming.table_writer import TableWriter

_NONE_WAIT = 2**62


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
        app, properties = f"{job}/{contract.topic}", writer_properties(contract)
        schema = bronze_schema(contract)
        may_add = schema.keys() - LINEAGE.keys() - {contract.key, contract.event_time}
        bronze = open_table(self.path, schema, may_add=may_add)
        quarantine = open_table(quarantine_path(lake, contract), QUARANTINE)
        self._bronze = TableWriter(bronze, contract, app, properties)
        self._quarantine = TableWriter(quarantine, contract, app, properties)
        self._rejects = Rejects(rejects_seconds)
        self.position: Offsets = {}
        self.resume: Offsets = {}
        """The offsets to read Kafka from: before `position` where rejects were not committed yet."""
        self.watermarks: Offsets = {}

    def load(self, partitions: list[int]) -> Offsets:
        """Reads the next offset of each partition, and its watermark, from bronze's log. Returns the offsets."""
        self._bronze.forget_standing()
        self._quarantine.forget_standing()
        self.position = self._bronze.position(partitions)
        versions = {p: self._bronze.read_version(p, "watermark") for p in partitions}
        self.watermarks = {p: version for p, version in versions.items() if version is not None}
        waiting = {p: self._bronze.read_version(p, "rejects") for p in partitions}
        # Rejects that waited at the last commit to bronze may have been committed since.
        since = {p: max(at, waiting[p] or 0) for p, at in self._quarantine.position(partitions).items()}
        self.resume = {p: at if waiting[p] is None else min(at, since[p]) for p, at in self.position.items()}
        self._rejects.begin(self.resume, self.position)
        return self.position

    def topic_id(self) -> int | None:
        """Returns the id of the Kafka topic that the rows came from (see `claim`), or None where none was recorded."""
        return self._bronze.topic_id()

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
        self._quarantine.claim(partitions, stop, failed, topic_id)
        self._bronze.claim(partitions, stop, failed, topic_id)
        return self.load(partitions)

    def check(self) -> None:
        """Raises Fenced when another process has taken over. A writer that has nothing to commit calls this."""
        self._bronze.check(list(self.position))

    def sink_position(self, sink: str) -> Offsets:
        """Returns the position that the last commits recorded for a sink (see `commit`)."""
        return {p: self._bronze.read_version(p, sink) or 0 for p in self.position}

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
        mark = self._bronze.transaction
        marks = [mark(p, at, "watermark") for p, at in watermarks.items()]
        for sink, position in sinks.items():
            marks += [mark(p, offset, sink) for p, offset in position.items()]
        waiting = self._rejects.since()
        if waiting != self._rejects.recorded:
            offsets = dict.fromkeys(self.position, _NONE_WAIT) | waiting
            marks += [mark(p, offset, "rejects") for p, offset in offsets.items()]
        self._bronze.commit(batch.rows, batch.end, marks, self.position, stop, failed)
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
        rows = batch.rows.filter(from_position(self.position), pl.col("_partition").is_in(list(end)))
        return Batch(rows, start, end, batch.polled)

    def read(self, after: Offsets, until: Offsets, limit: int) -> Iterator[Batch]:
        """Yields the bronze rows of [after, until), in batches of at most `limit` offsets a partition.

        Rows of the history of a new city are left out. They are no messages of the stream, and may be millions.
        """
        position = dict(after)
        while is_behind(position, until):
            end = {p: max(position.get(p, 0), min(position.get(p, 0) + limit, last)) for p, last in until.items()}
            rows = (
                scan(self.path)
                .filter(from_position(position) & below_position(end) & ~is_history(pl.col("_offset")))
                .sort("_partition", "_offset")
                .collect()
            )
            yield Batch(rows, {p: position.get(p, 0) for p in end}, end)
            position = end

    def _commit_rejects(
        self, batch: Batch, rejects: pl.DataFrame, stop: threading.Event, failed: Callable[[str], None]
    ) -> None:
        position = self._quarantine.position(list(batch.end))
        fresh = rejects.filter(from_position(position, partition="partition", offset="offset"))
        if fresh.is_empty():
            return
        ends = {p: max(end, position[p]) for p, end in batch.end.items()}
        self._quarantine.commit(fresh, ends, (), self.position, stop, failed)


def watermarks_after(rows: pl.DataFrame) -> Offsets:
    """Returns each partition's watermark after these rows, in microseconds since the epoch."""
    newest = rows.group_by("_partition").agg(pl.col("_watermark").max().dt.epoch("us"))
    return dict(newest.iter_rows())


def scan(path: Path) -> pl.LazyFrame:
    """Scans the Delta table at `path` lazily."""
    return pl.scan_delta(str(path))
