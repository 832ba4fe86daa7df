"""Lists every derived table: those in a domain's tables.py, and those that are derived from each of its contracts."""

from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter

from city.contracts.registry import Domain, domains
from city.tables.model import Table, TableError
from city.tables.silver import latest_table, silver_table
from city.tables.windows import window_table


def tables_of(domain: Domain) -> list[Table]:
    """Lists a domain's tables: the declared ones, and those of its contracts that it does not declare itself."""
    module = domain.module("tables")
    declared: list[Table] = list(module.TABLES) if module else []
    declared_ids = {table.id for table in declared}
    derived = [
        silver_table(contract) if contract.rate == "high" else latest_table(contract)
        for contract in domain.contracts
        if f"silver/{contract.name}" not in declared_ids
    ]
    windows = [
        window_table(contract, window)
        for contract in domain.contracts
        for window in contract.windows
        if f"gold/{window.name}" not in declared_ids
    ]
    return declared + derived + windows


def tables() -> dict[str, Table]:
    """Returns all tables by `layer/name`. Raises TableError when two domains declare a table of the same name."""
    by_id: dict[str, Table] = {}
    for domain in domains():
        for table in tables_of(domain):
            if table.id in by_id:
                raise TableError(f"table {table.id!r} is declared twice: rename one of them")
            by_id[table.id] = table
    return by_id


def table_of(name: str) -> Table:
    """Returns the table of that `layer/name`. Raises TableError that lists the known tables."""
    by_id = tables()
    if name not in by_id:
        raise TableError(f"no table {name!r}; known: {', '.join(sorted(by_id))}")
    return by_id[name]


def select_tables(names: Sequence[str]) -> list[Table]:
    """Lists the tables of these names (`gold`, `gold/x` or `x`) and their sources, each after its own sources.

    Tables without a transform are left out. Raises TableError that lists the known tables.
    """
    by_id = tables()
    selected: set[str] = set()
    for name in names:
        matches = {t for t in by_id if name in (t, t.partition("/")[0], t.partition("/")[2])}
        if not matches:
            raise TableError(f"no table or layer {name!r}; known: {', '.join(sorted(by_id))}")
        selected |= matches
    return [by_id[name] for name in in_order(by_id, selected) if by_id[name].transform is not None]


def is_live(table: Table) -> bool:
    """Returns whether a table derives from a stream, directly or through other tables. Such a table must be fresh."""
    all_tables = tables()
    return any(
        is_live(all_tables[source.table]) if source.table in all_tables else source.table.startswith("bronze/")
        for source in table.sources.values()
    )


def is_learned(table: Table) -> bool:
    """Returns whether other tables use a table's rows of a day only on later days, as settled values.

    Such a table need not follow its sources closely.
    """
    readers = [(other, source) for other in tables().values() for source in other.sources.values()]
    uses = [(other, source) for other, source in readers if source.table == table.id]
    return bool(uses) and all(source.is_settled or is_learned(other) for other, source in uses)


def in_order(by_id: Mapping[str, Table], selected: Iterable[str]) -> list[str]:
    """Sorts the selected tables and all their direct and indirect sources, sources first."""
    graph = {name: [s.table for s in table.sources.values() if s.table in by_id] for name, table in by_id.items()}
    needed: dict[str, list[str]] = {}
    pending = sorted(selected)  # the order is the same in each process
    while pending:
        name = pending.pop()
        if name not in needed:
            needed[name] = graph[name]
            pending += graph[name]
    return list(TopologicalSorter(needed).static_order())
