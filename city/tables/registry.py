"""Every derived table: those that a domain declares in its tables.py, and what follows from each of its contracts."""

from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter

from city.contracts.registry import Domain, domains
from city.tables.model import Table, TableError
from city.tables.silver import latest_table, silver_table
from city.tables.windows import window_table


def tables_of(domain: Domain) -> list[Table]:
    module = domain.module("tables")
    declared: list[Table] = list(module.TABLES) if module else []
    known = {table.id for table in declared}
    derived = [
        silver_table(contract) if contract.rate == "high" else latest_table(contract)
        for contract in domain.contracts
        if f"silver/{contract.name}" not in known
    ]
    windows = [
        window_table(contract, window)
        for contract in domain.contracts
        for window in contract.windows
        if f"gold/{window.name}" not in known
    ]
    return declared + derived + windows


def tables() -> dict[str, Table]:
    """All tables by `layer/name`. Raises TableError when two domains declare one of the same name."""
    found: dict[str, Table] = {}
    for domain in domains():
        for table in tables_of(domain):
            if table.id in found:
                raise TableError(f"table {table.id!r} is declared twice: rename one of them")
            found[table.id] = table
    return found


def table_of(name: str) -> Table:
    """The table of that `layer/name`. Raises TableError that lists the known ones."""
    found = tables()
    if name not in found:
        raise TableError(f"no table {name!r}; known: {', '.join(sorted(found))}")
    return found[name]


def chosen(names: Sequence[str]) -> list[Table]:
    """The tables of these names (`gold`, `gold/x` or `x`) and those they are made from, each after its sources.

    Raises TableError that lists the known ones.
    """
    known = tables()
    wanted: set[str] = set()
    for name in names:
        found = {t for t in known if name in (t, t.partition("/")[0], t.partition("/")[2])}
        if not found:
            raise TableError(f"no table or layer {name!r}; known: {', '.join(sorted(known))}")
        wanted |= found
    return [known[name] for name in in_order(known, wanted) if known[name].transform is not None]


def in_order(known: Mapping[str, Table], wanted: Iterable[str]) -> list[str]:
    """The wanted tables and all before them, sources first."""
    graph = {name: [s.table for s in table.sources.values() if s.table in known] for name, table in known.items()}
    needed: dict[str, list[str]] = {}
    todo = list(wanted)
    while todo:
        name = todo.pop()
        if name not in needed:
            needed[name] = graph[name]
            todo += graph[name]
    return list(TopologicalSorter(needed).static_order())
