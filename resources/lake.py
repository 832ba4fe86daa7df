"""The Delta lake resource."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
from deltalake import DeltaTable
from pydantic import PrivateAttr

from city.contracts.model import Contract
from city.lake import LAYERS, locate
from city.lake.lakehouse import Lakehouse, lakehouse
from city.lake.location import cold_location
from city.lake.snapshot import Snapshot
from city.settings import settings


class LakeResource(dg.ConfigurableResource):
    """The lake's tables, by contract and layer ("bronze" or "quarantine").

    Dagster creates one resource for each run and each tick. All builds, trainings and predictions of a run read the
    resource's snapshot.
    """

    path: str
    _snapshot: Snapshot | None = PrivateAttr(None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Creates the snapshot of this run."""
        self._snapshot = Snapshot(self.root, cold_location(settings()))

    @property
    def root(self) -> Path:
        """The lake's folder."""
        return Path(self.path)

    def exists(self, contract: Contract, layer: str = "bronze") -> bool:
        """Returns whether a contract's table exists."""
        return DeltaTable.is_deltatable(str(locate(self.root, layer, contract.name)))

    def table(self, contract: Contract, layer: str = "bronze") -> DeltaTable:
        """Opens a contract's table."""
        return DeltaTable(locate(self.root, layer, contract.name))

    def scan(self, contract: Contract, layer: str = "bronze") -> pl.LazyFrame:
        """Scans a contract's table."""
        return pl.scan_delta(str(locate(self.root, layer, contract.name)))

    def house(self) -> Lakehouse:
        """Returns the lakehouse, which builds and reads the derived tables with the engine CITY_ENGINE."""
        return replace(lakehouse(settings(), self.root), snapshot=self.snapshot)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of the lake that this run reads. Outside a run, a snapshot of the lake as it is now."""
        return self._snapshot or Snapshot(self.root, cold_location(settings()))

    def tables(self) -> dict[str, DeltaTable]:
        """Opens every Delta table of the lake. Returns them by `layer/name`."""
        paths = sorted(path for layer in LAYERS for path in (self.root / layer).glob("*/"))
        return {
            f"{path.parent.name}/{path.name}": DeltaTable(path) for path in paths if DeltaTable.is_deltatable(str(path))
        }
