"""The QuestDB tables that follow from a contract: one for its events, one for each of its windows."""

from datetime import timedelta

from city.contracts.model import Contract, Count, Distinct, Kind, Window

_TYPES: dict[Kind, str] = {
    "string": "VARCHAR",
    "float": "DOUBLE",
    "integer": "LONG",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
}


def symbols(contract: Contract) -> list[str]:
    """The columns of few different values: the key, what has choices, and cells."""
    chosen = [field.name for field in contract.fields if field.name == contract.key or field.choices]
    return chosen + [cell.name for cell in contract.cells]


def columns(contract: Contract) -> dict[str, str]:
    """Name to QuestDB type of the contract's table; `part` and `off` are the event's Kafka coordinates."""
    named = symbols(contract)
    fields = {f.name: "SYMBOL" if f.name in named else _TYPES[f.kind] for f in contract.fields}
    return fields | {cell.name: "SYMBOL" for cell in contract.cells} | {"part": "INT", "off": "LONG"}


def window_columns(window: Window) -> dict[str, str]:
    """Name to QuestDB type of a window's table."""
    counts = {a.name: "LONG" if isinstance(a, Count | Distinct) else "DOUBLE" for a in window.aggregates}
    return {"window_start": "TIMESTAMP", window.by: "SYMBOL"} | counts


def create_events(contract: Contract) -> str:
    return _create(contract.name, columns(contract), contract.event_time, contract.key, contract.ttl)


def create_window(contract: Contract, window: Window) -> str:
    return _create(window.name, window_columns(window), "window_start", window.by, contract.ttl)


def evolve_events(contract: Contract) -> list[str]:
    """What adds the columns that an older table has not; its rows have null there."""
    return [
        f"ALTER TABLE {contract.name} ADD COLUMN IF NOT EXISTS {name} {kind}"
        for name, kind in columns(contract).items()
    ]


def evolve_window(window: Window) -> list[str]:
    return [
        f"ALTER TABLE {window.name} ADD COLUMN IF NOT EXISTS {name} {kind}"
        for name, kind in window_columns(window).items()
    ]


def missing(statements: list[str], held: set[str]) -> list[str]:
    """Those of `evolve_…` that are about columns which are not held."""
    return [statement for statement in statements if statement.split()[-2] not in held]


def _create(table: str, types: dict[str, str], timestamp: str, key: str, ttl: timedelta) -> str:
    body = ", ".join(f"{name} {kind}" for name, kind in types.items())
    hours = max(1, round(ttl.total_seconds() / 3600))
    return (
        f"CREATE TABLE IF NOT EXISTS {table} ({body}) TIMESTAMP({timestamp}) PARTITION BY HOUR "
        f"TTL {hours} HOURS WAL DEDUP UPSERT KEYS({timestamp}, {key})"
    )
