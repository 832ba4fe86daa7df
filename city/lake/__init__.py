"""The lake: a folder of Delta tables, `<layer>/<name>`."""

from pathlib import Path

from city.contracts.model import Contract, ContractError

# The columns that order a layer's rows by arrival. The rows of a derived table have no such order.
ORDER = {"bronze": ("_arrived", "_offset"), "quarantine": ("arrived", "offset")}
STRAYS = "mqtt"
"""The quarantine table of MQTT messages that belong to no contract, or that Kafka cannot take."""
LAYERS = (
    "bronze",
    "quarantine",
    "silver",
    "gold",
    "features",
    "reference",
    "scores",
    "predictions",
    "served",
    "outcomes",
    "monitoring",
)


def bronze_path(lake: Path, contract: Contract) -> Path:
    """Returns the path of the contract's bronze table."""
    return locate(lake, "bronze", contract.name)


def quarantine_path(lake: Path, contract: Contract) -> Path:
    """Returns the path of the contract's quarantine table."""
    return locate(lake, "quarantine", contract.name)


def locate(lake: Path, layer: str, name: str) -> Path:
    """Returns the path of a table. Raises ContractError for an unknown layer."""
    if layer not in LAYERS:
        raise ContractError(f"no layer {layer!r}; known: {', '.join(LAYERS)}")
    return lake / layer / name


def row_count(path: Path) -> int:
    """Returns the number of rows of a Delta table, from its log's statistics; 0 where there is no table."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        return int(DeltaTable(path).count())
    except TableNotFoundError:
        return 0
