"""Where the Delta tables of contracts are, and how many rows they have."""

from pathlib import Path

from city.contracts.model import Contract, ContractError


def bronze_path(lake: Path, contract: Contract) -> Path:
    return lake / "bronze" / contract.name


def quarantine_path(lake: Path, contract: Contract) -> Path:
    return lake / "quarantine" / contract.name


LAYERS = {"bronze": bronze_path, "quarantine": quarantine_path}
# What a layer's rows are ordered by as they come.
ORDER = {"bronze": ("_arrived", "_offset"), "quarantine": ("arrived", "offset")}


def locate(lake: Path, contract: Contract, layer: str) -> Path:
    if layer not in LAYERS:
        raise ContractError(f"no layer {layer!r}; known: {', '.join(LAYERS)}")
    return LAYERS[layer](lake, contract)


def row_count(path: Path) -> int:
    """Rows of a Delta table, from its log's statistics; 0 where there is none."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        return int(DeltaTable(path).count())
    except TableNotFoundError:
        return 0
