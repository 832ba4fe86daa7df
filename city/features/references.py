"""Reads the reference tables that a view is made from, in the stream and in the server."""

import time
from pathlib import Path

import polars as pl

from city.features.views import View
from city.lake.reference import LAYER, read
from city.tables.cell_sources import COMPUTED
from city.tables.registry import table_of

REREAD_SECONDS = 10.0
"""A change that people make in a reference table takes effect after this."""


class ReferenceSources:
    """The rows of a view's reference tables that people maintain. Only one thread may use it at a time."""

    def __init__(self, view: View, lake: Path) -> None:
        self._lake = lake
        self._tables = {
            name: table_of(source.table)
            for name, source in view.table.sources.items()
            if source.table.startswith(f"{LAYER}/") and source.table not in COMPUTED
        }
        self._frames: dict[str, pl.DataFrame] = {}
        self._read_at = float("-inf")

    def frames(self) -> dict[str, pl.DataFrame]:
        """Returns the rows by source. A table that was never filled has no rows."""
        if time.monotonic() > self._read_at + REREAD_SECONDS:
            self._frames = {name: read(self._lake, table) for name, table in self._tables.items()}
            self._read_at = time.monotonic()
        return self._frames
