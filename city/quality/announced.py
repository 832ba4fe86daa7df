"""The keys that contracts have announced, and what happens to events that name others."""

import logging
import time
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from city.contracts.model import Contract, Reference
from city.contracts.registry import contracts
from city.settings import Settings, Unknown

log = logging.getLogger(__name__)

_REREAD_SECONDS = 10.0


def policy_of(contract: Contract, reference: Reference, config: Settings) -> Unknown:
    """Returns what happens to events whose reference is unknown: by CITY_UNKNOWN_IDS, else as the contract declares."""
    return config.unknown_ids.get(contract.name, reference.unknown)


def load_announced_keys(contract: Contract, lake: Path, config: Settings, *policies: Unknown) -> dict[str, pl.Series]:
    """Loads the keys that referenced contracts have announced, by the field that refers to them.

    A field is left out if its policy is none of `policies`, or if its referenced contract has no bronze table yet.
    """
    declared = {c.name: c for c in contracts()}
    keys_by_field = {}
    for reference in contract.references:
        path = lake / "bronze" / reference.to
        if policy_of(contract, reference, config) in policies and DeltaTable.is_deltatable(str(path)):
            key = reference.key_of(declared[reference.to])
            keys_by_field[reference.field] = pl.scan_delta(str(path)).select(pl.col(key).unique()).collect()[key]
    return keys_by_field


class KnownIds:
    """The ids that a contract's events may have, for a stream. They are read again every ten seconds."""

    def __init__(self, contract: Contract, config: Settings) -> None:
        self._contract, self._config = contract, config
        refuses = (policy_of(contract, reference, config) == "quarantine" for reference in contract.references)
        self._is_checked = any(refuses)
        self._known: dict[str, pl.Series] = {}
        self._versions: dict[str, int] = {}
        self._read_at = float("-inf")

    def current(self) -> dict[str, pl.Series]:
        """Returns the known ids by field. A field whose ids are not checked is left out."""
        if self._is_checked and time.monotonic() > self._read_at + _REREAD_SECONDS:
            self._read_at = time.monotonic()
            try:
                if (versions := self._table_versions()) != self._versions:
                    self._known = load_announced_keys(self._contract, self._config.lake, self._config, "quarantine")
                    self._versions = versions
            except (OSError, DeltaError, pl.exceptions.PolarsError) as error:
                if not self._versions:
                    raise  # nothing can be judged yet
                log.warning("%s: the announced ids stay as they were: %s", self._contract.name, error)
        return self._known

    def _table_versions(self) -> dict[str, int]:
        """Returns the versions of the tables with the announced keys. Unchanged tables are not read again."""
        paths = {reference.to: self._config.lake / "bronze" / reference.to for reference in self._contract.references}
        return {
            name: DeltaTable(str(path)).version() for name, path in paths.items() if DeltaTable.is_deltatable(str(path))
        }
