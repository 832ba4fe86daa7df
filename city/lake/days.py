"""The local days that the lake has rows of, from the Delta log alone."""

from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from city.contracts.model import Contract
from city.contracts.schema import TIMESTAMP
from city.lake import bronze_path
from city.tables import calendar


def first_day(lake: Path, contracts: Iterable[Contract], timezone: str) -> date | None:
    """Returns the local day of the earliest event in bronze; None where no contract has rows.

    Reads the smallest event times that each file's statistics in the Delta log give, and no data. Days that went to
    cold storage are not counted: nothing can be built of them here.
    """
    begins = [begin for contract in contracts if (begin := _begin(lake, contract)) is not None]
    return min(begins).astimezone(calendar.zone(timezone)).date() if begins else None


def _begin(lake: Path, contract: Contract) -> datetime | None:
    path = bronze_path(lake, contract)
    if not DeltaTable.is_deltatable(str(path)):
        return None
    files = pl.DataFrame(DeltaTable(path).get_add_actions(flatten=True))
    column = f"min.{contract.event_time}"
    if column not in files.columns:
        return None
    begin = files[column].cast(TIMESTAMP).min()
    return begin if isinstance(begin, datetime) else None
