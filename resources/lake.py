"""The Delta lake."""

from pathlib import Path

import dagster as dg
import polars as pl
from deltalake import DeltaTable

from city.contracts.model import Contract
from city.lake import LAYERS, locate
from city.lake.lakehouse import Lakehouse, lakehouse
from city.settings import settings


class LakeResource(dg.ConfigurableResource):
    """Tables by contract and layer ("bronze", "quarantine")."""

    path: str

    @property
    def root(self) -> Path:
        return Path(self.path)

    def exists(self, contract: Contract, layer: str = "bronze") -> bool:
        return DeltaTable.is_deltatable(str(locate(self.root, layer, contract.name)))

    def table(self, contract: Contract, layer: str = "bronze") -> DeltaTable:
        return DeltaTable(locate(self.root, layer, contract.name))

    def scan(self, contract: Contract, layer: str = "bronze") -> pl.LazyFrame:
        return pl.scan_delta(str(locate(self.root, layer, contract.name)))

    def house(self) -> Lakehouse:
        """What builds and reads the derived tables, with the engine that CITY_ENGINE names."""
        return lakehouse(settings(), self.root)

    def tables(self) -> dict[str, DeltaTable]:
        """Every Delta table that is there, by `layer/name`."""
        paths = sorted(path for layer in LAYERS for path in (self.root / layer).glob("*/"))
        return {
            f"{path.parent.name}/{path.name}": DeltaTable(path) for path in paths if DeltaTable.is_deltatable(str(path))
        }
