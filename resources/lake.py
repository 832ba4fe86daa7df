"""The Delta lake."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
from deltalake import DeltaTable
from pydantic import PrivateAttr

from city.contracts.model import Contract
from city.lake import LAYERS, locate
from city.lake.lakehouse import Lakehouse, lakehouse
from city.lake.snapshot import Snapshot
from city.settings import settings


class LakeResource(dg.ConfigurableResource):
    """Tables by contract and layer ("bronze", "quarantine"). Dagster makes one for each run and each tick, and with it
    the snapshot that all builds, trainings and predictions of that run read."""

    path: str
    _snapshot: Snapshot | None = PrivateAttr(None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._snapshot = Snapshot(self.root, settings().cold_path)

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
        return replace(lakehouse(settings(), self.root), snapshot=self.snapshot)

    @property
    def snapshot(self) -> Snapshot:
        """The lake as this run sees it; outside a run, as it is now."""
        return self._snapshot or Snapshot(self.root, settings().cold_path)

    def tables(self) -> dict[str, DeltaTable]:
        """Every Delta table that is there, by `layer/name`."""
        paths = sorted(path for layer in LAYERS for path in (self.root / layer).glob("*/"))
        return {
            f"{path.parent.name}/{path.name}": DeltaTable(path) for path in paths if DeltaTable.is_deltatable(str(path))
        }
