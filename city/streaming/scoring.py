"""The step between bronze and the sinks in which models will score a batch."""

from typing import Protocol

import polars as pl

from city.contracts.model import Contract


class Scorer(Protocol):
    """Adds columns to a batch's rows; never removes, reorders or changes what is there."""

    def score(self, contract: Contract, rows: pl.DataFrame) -> pl.DataFrame: ...


class Identity:
    """No model yet: the rows as they are."""

    def score(self, contract: Contract, rows: pl.DataFrame) -> pl.DataFrame:
        return rows
