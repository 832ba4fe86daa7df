"""The Delta lake."""

from pathlib import Path

import dagster as dg
import polars as pl
from deltalake import DeltaTable

from city.contracts.model import Contract
from city.lake import LAYERS, locate


class LakeResource(dg.ConfigurableResource):
    """Tables by contract and layer ("bronze", "quarantine")."""

    path: str

    @property
    def root(self) -> Path:
        return Path(self.path)

    def exists(self, contract: Contract, layer: str = "bronze") -> bool:
        return DeltaTable.is_deltatable(str(locate(self.root, contract, layer)))

    def table(self, contract: Contract, layer: str = "bronze") -> DeltaTable:
        return DeltaTable(locate(self.root, contract, layer))

    def scan(self, contract: Contract, layer: str = "bronze") -> pl.LazyFrame:
        return pl.scan_delta(str(locate(self.root, contract, layer)))

    def tables(self, contracts: list[Contract]) -> dict[str, DeltaTable]:
        """Those that exist, by `layer/name`."""
        return {
            f"{layer}/{c.name}": self.table(c, layer) for c in contracts for layer in LAYERS if self.exists(c, layer)
        }
