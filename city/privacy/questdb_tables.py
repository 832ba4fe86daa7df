"""Finds an identity in QuestDB's tables and in their symbol files."""

from collections.abc import Mapping
from typing import NamedTuple

from city import questdb
from city.contracts.model import Contract, Window
from city.contracts.registry import contracts
from city.privacy.traces import quote_literal
from city.questdb import QuestDBServer
from city.settings import Settings
from city.streaming.sinks.questdb_rebuild import copies, is_symbol


class QuestDBTable(NamedTuple):
    """A QuestDB table that has the identity's column: the table of a contract's events, or of one of its windows."""

    contract: Contract
    window: Window | None = None

    @property
    def name(self) -> str:
        """The name in QuestDB."""
        return self.window.name if self.window else self.contract.name


def list_questdb_tables(config: Settings, column: str) -> list[QuestDBTable]:
    """Returns the QuestDB tables that have the column. The list is empty where no QuestDB ever ran."""
    if config.questdb_address is None and not (config.home / "questdb").exists():
        return []
    events = [c for c in contracts() if column in {f.name for f in c.fields} and c.rate == "high"]
    windows = [QuestDBTable(c, window) for c in contracts() for window in c.windows if window.by == column]
    return [*(QuestDBTable(contract) for contract in events), *windows]


def count_questdb_rows(config: Settings, table: QuestDBTable, column: str, identity: str) -> int:
    """Counts the rows of the identity in a QuestDB table, including the copies of an unfinished rebuild. Returns 0 for
    a table that never existed. Raises as `questdb.rows` does."""
    return sum(_count_copy_rows(config.questdb, name, column, identity) for name in copies(config.questdb, table.name))


def _count_copy_rows(server: QuestDBServer, name: str, column: str, identity: str) -> int:
    try:
        rows = questdb.rows(server, f"SELECT count() FROM {name} WHERE {column} = {quote_literal(identity)}")
    except questdb.QuestDBError as error:
        if "does not exist" in str(error):  # another process finished a rebuild meanwhile
            return 0
        raise
    return int(rows[0][0])


def may_be_a_symbol(
    config: Settings, table: QuestDBTable, column: str, identity: str, erased: Mapping[str, int]
) -> bool:
    """Tells whether the identity may be a symbol of the column in a table without rows of it. The files of a remote
    server cannot be read. There the answer is yes if this erasure deleted rows from bronze or cold storage."""
    if config.questdb_address is None:
        return is_in_symbols(config, table, column, identity)
    return bool({f"bronze/{table.contract.name}", f"cold/{table.contract.name}"} & erased.keys())


def is_in_symbols(config: Settings, table: QuestDBTable, column: str, identity: str) -> bool:
    """Tells whether the identity is a symbol of the column in the table's files. Returns False for a remote server,
    whose files cannot be read."""
    if config.questdb_address is not None:
        return False
    folder, server = config.home / "questdb" / "db", config.questdb
    return any(is_symbol(server, folder, name, column, identity) for name in copies(server, table.name))
