"""Events and windows to QuestDB. Its own table says how far it came, and its keys make repeats harmless."""

import logging

import polars as pl
from questdb import Sender

from city import questdb
from city.contracts import questdb as tables
from city.contracts.model import Contract
from city.streaming.bronze import BronzeStream
from city.streaming.records import Offsets
from city.streaming.sink import Sink, window_operators

log = logging.getLogger(__name__)

# A flush may otherwise wait far beyond any limit (questdb/py-questdb-client#75); retries are the worker's.
_DEADLINE = "request_timeout=15000;retry_timeout=0;auto_flush=off;"


class QuestDBSink(Sink):
    """Windows are written before the rows they are made of: the position, which is read from the rows, then never
    runs ahead of the windows."""

    name = "questdb"

    def __init__(self, contract: Contract, address: str, bronze: BronzeStream) -> None:
        self._contract, self._address, self._bronze = contract, address, bronze
        self._columns = list(tables.columns(contract))
        self._symbols = tables.symbols(contract)
        self._sender: Sender | None = None

    def open(self, recorded: Offsets) -> Offsets:
        self.close()
        ensure_tables(self._address, self._contract)
        self.operators = window_operators(self._contract, self._bronze)
        self._sender = Sender.from_conf(f"http::addr={self._address};{_DEADLINE}")
        self._sender.establish()
        return applied(self._address, self._contract)

    def apply(self, rows: pl.DataFrame, start: Offsets) -> None:
        for operator in self.operators:
            window = operator.window
            self._send(window.name, operator.add(rows, start), [window.by], "window_start")
        self.send_events(rows)

    def send_events(self, rows: pl.DataFrame) -> None:
        """Bronze rows, without their windows."""
        events = rows.rename({"_partition": "part", "_offset": "off"}).select(self._columns)
        self._send(self._contract.name, events, self._symbols, self._contract.event_time)

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close(flush=False)
            self._sender = None

    def _send(self, table: str, frame: pl.DataFrame, symbols: list[str], at: str) -> None:
        if frame.is_empty():
            return
        assert self._sender is not None
        arrow = frame.to_pandas(use_pyarrow_extension_array=True)
        self._sender.dataframe(arrow, table_name=table, symbols=symbols, at=at)
        self._sender.flush()


def ensure_tables(address: str, contract: Contract) -> None:
    """Creates the contract's tables where they are not, adds the columns that older ones lack, and resumes those that
    a crash has suspended."""
    _ensure(address, contract.name, tables.create_events(contract), tables.evolve_events(contract))
    for window in contract.windows:
        _ensure(address, window.name, tables.create_window(contract, window), tables.evolve_window(window))
    for table in questdb.resume_suspended(address, [contract.name, *(w.name for w in contract.windows)]):
        log.warning("QuestDB table %s was suspended and has been resumed", table)


def _ensure(address: str, table: str, create: str, evolve: list[str]) -> None:
    questdb.execute(address, create)
    held = {row[0] for row in questdb.rows(address, f"SHOW COLUMNS FROM {table}")}
    for statement in tables.missing(evolve, held):
        log.info("QuestDB table %s: %s", table, statement)
        questdb.execute(address, statement)


def applied(address: str, contract: Contract) -> Offsets:
    """The next offset of each partition, by what is visible in the contract's table."""
    found = questdb.rows(address, f"SELECT part, max(off) FROM {contract.name}")
    return {int(part): int(offset) + 1 for part, offset in found if part is not None}
