"""Writes a Delta table of a stream as the single writer of its partitions.

Each commit carries an application transaction for each partition. The transaction's version is the next offset. A
writer keeps its handle of the table, so its commit fails when another process has meanwhile committed to the same
partition or claimed it. The writer is then `Fenced` and must stop.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence

import polars as pl
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)

from city.contracts.model import Contract
from city.stack.backoff import Backoff
from city.streaming.records import Offsets

log = logging.getLogger(__name__)

_CHECKPOINT_COMMITS = 25
"""The number of commits between two checkpoints. At each commit a handle reads the log from the version at which it was
opened, and lists the log's whole folder. So the writer creates a checkpoint after this many commits, opens the table
again from it, and deletes expired log files."""
_COMPACT_COMMITS = 8 * _CHECKPOINT_COMMITS
_COMPACTED_BYTES = 16 << 20  # small, so that compaction rewrites few bytes; maintenance writes larger files
# The writer runs these steps itself, in a place where their failure does not look like a failed commit.
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

Standing = dict[int, tuple[int | None, int | None]]
"""For each partition: its position in a table's log, and the number of its last claim."""


class Fenced(RuntimeError):
    """Another process has taken over a partition of this stream. This process wrote nothing of it and must stop."""


class TableWriter:
    """Writes a contract's rows to a Delta table, as the only writer of its partitions.

    `app` begins the names of the transactions: one for each partition, and those that the caller adds.
    """

    def __init__(self, table: DeltaTable, contract: Contract, app: str, properties: WriterProperties) -> None:
        self.table = table
        self._contract, self._app, self._properties = contract, app, properties
        self._writer = uuid.uuid4().hex
        # The standing of the handle, from this writer's own reads and commits. A query of the handle reads the log back
        # to its last checkpoint for each partition, which costs more than the commit itself.
        self._standing: Standing = {}
        self._claims: dict[int, int] = {}
        self._commits = 0

    def forget_standing(self) -> None:
        """Forgets what was read, so that the next call reads the log again."""
        self._standing = {}

    def position(self, partitions: list[int]) -> Offsets:
        """Returns the next offset of each partition."""
        return {p: at or 0 for p, (at, _) in self._cached_standing(partitions).items()}

    def topic_id(self) -> int | None:
        """Returns the id of the Kafka topic that a claim recorded, or None where none was recorded."""
        version = self.table.transaction_version(f"{self._app}/topic_id")
        return int(version) if version is not None else None

    def read_version(self, partition: int, name: str = "") -> int | None:
        """Reads the version of a partition's transaction from the handle's log: the position, or that of `name`."""
        return self._version(self.table, partition, name)

    def transaction(self, partition: int, version: int, name: str = "") -> Transaction:
        """Builds a transaction for a commit; `read_version` returns its version then."""
        return Transaction(self._transaction_name(partition, name), version)

    def check(self, partitions: list[int]) -> None:
        """Raises Fenced when another process has claimed one of the partitions, or committed to it."""
        expected = self._cached_standing(partitions)
        try:
            actual = self._read_standing(DeltaTable(self.table.table_uri), partitions)
        except Exception as error:  # storage is unavailable: the next commit waits for it, and reports it
            log.debug("cannot read %s: %s", self.table.table_uri, error)
            return
        if actual != expected:
            raise self._fenced_error(expected, actual)

    def claim(
        self, partitions: list[int], stop: threading.Event, failed: Callable[[str], None], topic_id: int | None
    ) -> None:
        """Claims the partitions: no earlier writer can commit to them afterwards. Records the topic's id.

        Retries as `commit` does.
        """
        table, backoff = self.table, Backoff(stop)
        while True:
            try:
                table.update_incremental()
                # The claim repeats the position, so that it and a commit of another writer exclude each other.
                standing = self._read_standing(table, partitions)
                marks = [self.transaction(p, at or 0) for p, (at, _) in standing.items()]
                marks += [self.transaction(p, (last or 0) + 1, "claim") for p, (_, last) in standing.items()]
                if topic_id is not None:
                    marks.append(Transaction(f"{self._app}/topic_id", topic_id))
                table.create_write_transaction(
                    [], "append", table.schema(), commit_properties=self._commit_properties(marks)
                )
                table.update_incremental()
                claimed: Standing = {p: (at or 0, (last or 0) + 1) for p, (at, last) in standing.items()}
                if (actual := self._read_standing(table, partitions)) != claimed:
                    raise self._fenced_error(claimed, actual)
                self._claims |= {p: claim for p, (_, claim) in claimed.items() if claim is not None}
                return
            except Fenced:
                raise
            except Exception as error:  # the predecessor has committed meanwhile, or storage fails
                failed(f"bronze {self._contract.name}: {_describe_error(error)}")
                backoff.wait()

    def commit(
        self,
        rows: pl.DataFrame,
        ends: Offsets,
        marks: Sequence[Transaction],
        partitions: Iterable[int],
        stop: threading.Event,
        failed: Callable[[str], None],
    ) -> None:
        """Commits the rows with the next offsets `ends` and the transactions `marks`.

        `partitions` are all that the caller writes. Retries with backoff for as long as storage fails, and calls
        `failed` with the reason. Raises Fenced when another process owns a partition, and Stopped when `stop` is set
        while it waits.
        """
        # Each commit carries this writer's claims of all partitions, also of those that the batch has no rows of, so
        # it excludes any other claim. Otherwise it would succeed after another writer claimed one of those partitions,
        # and would move this handle past that claim.
        expected = self._cached_standing(sorted({*partitions, *ends}))
        written: Standing = expected | {p: (end, expected[p][1]) for p, end in ends.items()}
        positions = [self.transaction(p, end) for p, end in ends.items()]
        claims = [self.transaction(p, n, "claim") for p, (_, n) in expected.items() if n is not None]
        properties = self._commit_properties([*positions, *marks, *claims])
        table, backoff = self.table, Backoff(stop)
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
                self._standing |= written
                self.table = self._tidy(table)
                return
            except Exception as error:  # storage raises errors of many types, and each of them must be retried
                failed(f"bronze {self._contract.name}: {_describe_error(error)}")
                log.warning("commit to %s failed: %s", table.table_uri, error)
                table, standing = self._reload(table, expected, written, backoff)
                if standing == written:
                    self._standing |= written
                    self.table = table
                    return

    def _tidy(self, table: DeltaTable) -> DeltaTable:
        """Compacts the table and shortens its log every so many commits, and returns a new handle.

        Returns the same handle where nothing is due, and where another writer has committed meanwhile.
        """
        self._commits += 1
        if self._commits % _CHECKPOINT_COMMITS:
            return table
        uri = table.table_uri
        # The handle itself is never updated: its commit fails after another writer's commit because the handle is old.
        try:
            if self._commits % _COMPACT_COMMITS == 0:
                DeltaTable(uri).optimize.compact(target_size=_COMPACTED_BYTES)
            newest = DeltaTable(uri)
            newest.create_checkpoint()
            newest.cleanup_metadata()
            fresh = DeltaTable(uri)
            return fresh if self._read_standing(fresh, list(self._standing)) == self._standing else table
        except Exception as error:  # the commit itself has succeeded: the tidying can wait until the next time
            log.warning("cannot maintain %s: %s", uri, error)
            return table

    def _reload(
        self, table: DeltaTable, expected: Standing, written: Standing, backoff: Backoff
    ) -> tuple[DeltaTable, Standing]:
        """Waits after a failed commit, opens the table again, and returns it and its standing: `expected` or `written`.

        It opens the table after the wait, so that the next attempt compares with as few other commits as possible.
        Raises Fenced when another writer moved a partition, and Stopped when a stop comes first.
        """
        while True:
            backoff.wait()
            try:
                table = DeltaTable(table.table_uri)
                # It is read once: an erasure that cuts the log meanwhile deletes files that the handle reads from.
                actual = self._read_standing(table, list(written))
                if actual == expected or (actual == written and self._has_own_commit(table, written)):
                    return table, actual
                raise self._fenced_error(expected, actual)
            except Fenced:
                raise
            except Exception as error:  # storage is still away
                log.warning("cannot read %s: %s", table.table_uri, error)

    def _fenced_error(self, expected: Standing, actual: Standing) -> Fenced:
        at, claims = ({p: standing[n] for p, standing in actual.items()} for n in (0, 1))
        return Fenced(
            f"another process now writes {self._contract.topic}: expected to continue at "
            f"{ {p: position for p, (position, _) in expected.items()} }, got {at}, claims {claims}. "
            "This copy stops, and nothing is lost."
        )

    def _cached_standing(self, partitions: list[int]) -> Standing:
        """Returns the handle's standing from memory. The first call for a partition reads it from the log.

        A commit of another writer that changes it makes this writer's next commit fail, so it is never read again.
        """
        if missing := [p for p in partitions if p not in self._standing]:
            self._standing |= self._read_standing(self.table, missing)
        return {p: self._standing[p] for p in partitions}

    def _read_standing(self, table: DeltaTable, partitions: list[int]) -> Standing:
        """Reads the standing of the partitions from a handle's log."""
        return {p: (self._version(table, p), self._version(table, p, "claim")) for p in partitions}

    def _version(self, table: DeltaTable, partition: int, name: str = "") -> int | None:
        return table.transaction_version(self._transaction_name(partition, name))

    def _transaction_name(self, partition: int, name: str) -> str:
        return f"{self._app}/{partition}/{name}" if name else f"{self._app}/{partition}"

    def _commit_properties(self, transactions: list[Transaction]) -> CommitProperties:
        return CommitProperties(app_transactions=transactions, custom_metadata={"writer": self._writer})

    def _has_own_commit(self, table: DeltaTable, written: Standing) -> bool:
        """Returns whether the commit that failed was written after all (delta-io/delta-rs#2609).

        A claim that this writer made proves it, because no other writer commits with it. Without claims only the
        history shows it, and an erasure may have cut the history; then this writer is fenced.
        """
        if all(claim is not None and self._claims.get(p) == claim for p, (_, claim) in written.items()):
            return True
        return any(entry.get("writer") == self._writer for entry in table.history(limit=5))


def _describe_error(error: object) -> str:
    text = str(error).strip().splitlines()
    first = text[0] if text else type(error).__name__
    if "os error 28" in str(error) or "No space left" in str(error):
        return f"the disk is full: {first}; free some space, and the stream continues"
    return first[:300]
