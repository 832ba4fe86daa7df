"""Tables by name, and the order in which they are built."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.contracts.registry import Domain, domain_of
from city.tables import Column, Source, Table, TableError
from city.tables import registry as tables_registry
from city.tables.registry import in_order, select_tables, table_of, tables, tables_of


def named(name: str, *sources: str) -> Table:
    column = Column(name="id", kind="string", description="")
    return Table(
        name=name,
        layer="gold",
        description="",
        key=("id",),
        columns=(column,),
        sources={str(n): Source(table=source) for n, source in enumerate(sources)},
        daily=False,
    )


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Table]:
    """Tables that are each made from some of those before it, and from bronze, in any order."""
    count = draw(st.integers(1, 8))
    made = [named(f"t{n}", "bronze/b", *(f"gold/t{m}" for m in range(n) if draw(st.booleans()))) for n in range(count)]
    return {table.id: table for table in draw(st.permutations(made))}


@settings(deadline=None)
@given(data=st.data(), by_id=graphs())
def test_tables_come_after_their_sources_and_no_other_table_comes(data: st.DataObject, by_id: dict[str, Table]) -> None:
    selected = data.draw(st.lists(st.sampled_from(sorted(by_id)), unique=True))
    order = in_order(by_id, selected)
    assert len(order) == len(set(order))
    needed, pending = set(), list(selected)
    while pending:
        name = pending.pop()
        needed.add(name)
        pending += [s.table for s in by_id[name].sources.values() if s.table in by_id]
    assert set(order) == needed
    for name in order:
        sources = [s.table for s in by_id[name].sources.values() if s.table in by_id]
        assert all(order.index(source) < order.index(name) for source in sources), (name, order)


def test_a_table_is_chosen_by_its_name_its_id_and_its_layer() -> None:
    by_name = [table.id for table in select_tables(["traffic_cells_daily"])]
    assert by_name == [table.id for table in select_tables(["gold/traffic_cells_daily"])]
    assert by_name == ["silver/vehicle_positions", "gold/traffic_cells_daily"]
    gold = {table.id for table in select_tables(["gold"])}
    assert {name for name, table in tables().items() if table.layer == "gold" and table.transform} <= gold
    assert "silver/vehicle_positions" in gold, "their sources come too"
    assert all(table.transform for table in select_tables(["gold"]))


def test_an_unknown_table_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(TableError, match="no table 'gold/moon'; known: .*gold/traffic_cells_daily"):
        table_of("gold/moon")
    with pytest.raises(TableError, match="no table or layer 'moon'; known: .*gold/traffic_cells_daily"):
        select_tables(["gold", "moon"])


def test_a_domain_has_a_silver_table_of_each_contract_and_a_gold_one_of_each_window() -> None:
    domain = domain_of("traffic")
    ids = [table.id for table in tables_of(domain)]
    assert len(ids) == len(set(ids)), "one that the domain declares itself is not derived too"
    for contract in domain.contracts:
        assert f"silver/{contract.name}" in ids
        assert {f"gold/{window.name}" for window in contract.windows} <= set(ids)


def test_what_a_domain_declares_itself_is_not_derived_too(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = domain_of("traffic")
    (contract,) = domain.contracts
    derived = {f"silver/{contract.name}", *(f"gold/{window.name}" for window in contract.windows)}
    assert derived <= {table.id for table in tables_of(domain)}
    own = [replace(named("other"), layer=name.split("/")[0], name=name.split("/")[1]) for name in sorted(derived)]  # type: ignore[arg-type]
    module = SimpleNamespace(TABLES=own)
    monkeypatch.setattr(Domain, "module", lambda domain, file: module if file == "tables" else None)
    assert tables_of(domain) == own


def test_two_tables_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [domain_of("traffic"), domain_of("traffic")]
    monkeypatch.setattr(tables_registry, "domains", lambda: twice)
    with pytest.raises(TableError, match="is declared twice: rename one of them"):
        tables()
