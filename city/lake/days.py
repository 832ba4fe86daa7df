"""Finds the local days that the lake has rows of, from the Delta log alone."""

from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from city import local_time
from city.contracts.model import Contract
from city.contracts.schema import TIMESTAMP
from city.lake import bronze_path, cold


def first_day(lake: Path, contracts: Iterable[Contract], timezone: str) -> date | None:
    """Returns the local day of the earliest event in bronze, or archived from it; None where no contract has rows.

    Reads no data: the smallest event times come from the files' statistics in the Delta log. Bronze's log also records
    the earliest archived event.
    """
    begins = [begin for contract in contracts if (begin := _earliest_event(lake, contract)) is not None]
    return min(begins).astimezone(local_time.zone(timezone)).date() if begins else None


def _earliest_event(lake: Path, contract: Contract) -> datetime | None:
    path = bronze_path(lake, contract)
    if not DeltaTable.is_deltatable(str(path)):
        return None
    bronze = DeltaTable(path)
    files = pl.DataFrame(bronze.get_add_actions(flatten=True))
    column = f"min.{contract.event_time}"
    warm = files[column].cast(TIMESTAMP).min() if column in files.columns else None
    begins = [moment for moment in (warm, cold.begin(bronze, contract)) if isinstance(moment, datetime)]
    return min(begins, default=None)
