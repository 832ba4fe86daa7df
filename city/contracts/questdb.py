"""Derives the QuestDB tables of a contract: one for its events, one for each of its windows."""

from city.contracts.model import Contract, Count, Distinct, Kind, Window

_TYPES: dict[Kind, str] = {
    "string": "VARCHAR",
    "float": "DOUBLE",
    "integer": "LONG",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
}


def symbols(contract: Contract) -> list[str]:
    """Lists the columns that have few different values: the key, fields with choices or windows, and cells."""
    few = {contract.key, *(window.by for window in contract.windows)}
    names = [field.name for field in contract.fields if field.name in few or field.choices]
    return names + [cell.name for cell in contract.cells]


def columns(contract: Contract) -> dict[str, str]:
    """Returns the QuestDB type of each column of the contract's table, by name.

    `part` and `off` are the event's Kafka coordinates.
    """
    symbol_names = symbols(contract)
    fields = {f.name: "SYMBOL" if f.name in symbol_names else _TYPES[f.kind] for f in contract.fields}
    return fields | {cell.name: "SYMBOL" for cell in contract.cells} | {"part": "INT", "off": "LONG"}


def window_columns(window: Window) -> dict[str, str]:
    """Returns the QuestDB type of each column of a window's table, by name."""
    counts = {a.name: "LONG" if isinstance(a, Count | Distinct) else "DOUBLE" for a in window.aggregates}
    return {"window_start": "TIMESTAMP", window.by: "SYMBOL"} | counts


def create_events(contract: Contract) -> str:
    """Returns the statement that creates the table of the contract's events."""
    return _create_statement(contract.name, columns(contract), contract.event_time, contract.key, ttl_hours(contract))


def create_window(contract: Contract, window: Window) -> str:
    """Returns the statement that creates the table of one of the contract's windows."""
    return _create_statement(window.name, window_columns(window), "window_start", window.by, ttl_hours(contract))


def ttl_hours(contract: Contract) -> int:
    """Returns for how many hours the contract's tables keep their rows."""
    return max(1, round(contract.ttl.total_seconds() / 3600))


def evolve_events(contract: Contract) -> list[str]:
    """Returns the statements that add the columns which an older table lacks. Its rows have null there."""
    return [
        f"ALTER TABLE {contract.name} ADD COLUMN IF NOT EXISTS {name} {kind}"
        for name, kind in columns(contract).items()
    ]


def evolve_window(window: Window) -> list[str]:
    """Returns the statements that add the columns which an older table of the window lacks."""
    return [
        f"ALTER TABLE {window.name} ADD COLUMN IF NOT EXISTS {name} {kind}"
        for name, kind in window_columns(window).items()
    ]


def missing(statements: list[str], existing: set[str]) -> list[str]:
    """Selects the statements of `evolve_…` whose columns are not among the `existing` columns of the table."""
    return [statement for statement in statements if statement.split()[-2] not in existing]


def _create_statement(table: str, types: dict[str, str], timestamp: str, key: str, hours: int) -> str:
    body = ", ".join(f"{name} {kind}" for name, kind in types.items())
    return (
        f"CREATE TABLE IF NOT EXISTS {table} ({body}) TIMESTAMP({timestamp}) PARTITION BY HOUR "
        f"TTL {hours} HOURS WAL DEDUP UPSERT KEYS({timestamp}, {key})"
    )


def table_names(contract: Contract) -> list[str]:
    """Returns the names of the contract's QuestDB tables: its events', and its windows'."""
    return [contract.name, *(window.name for window in contract.windows)]
