"""Turns a model's output for the rows of a batch into frames: of the answers, and of their record."""

from datetime import datetime

import polars as pl

from city.arrays import Floats
from city.models.predictions import answers
from city.serving.batching import Rows
from city.serving.versions import Served
from city.web.keys import Caller


def build_frames(
    served: Served,
    rows: Rows,
    output: Floats,
    first: str,
    at: datetime,
    caller: Caller,
    entity: str | None,
    took: float,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Builds the answers to rows (n, inputs) as a frame, and the same answers with the further columns of the record.
    Ids begin with `first`. `took` is the duration of the run in seconds."""
    model = served.model
    answered = answers(model, served.exported.calibration, output).with_columns(
        pl.format(f"{first}.{{}}", pl.int_range(pl.len())).alias("id"), pl.lit(served.number).alias("version")
    )
    inputs = pl.from_numpy(rows, list(model.inputs)).with_columns(pl.all().fill_nan(None))
    recorded = answered.with_columns(
        pl.lit(at).alias("at"),
        pl.lit("champion").alias("role"),
        pl.lit(caller.name).alias("caller"),
        pl.lit(entity, pl.String).alias("entity"),
        inputs.select(pl.struct(pl.all()).struct.json_encode()).to_series().alias("inputs"),
        pl.lit(took * 1000).alias("latency_ms"),
        pl.lit(False).alias("cached"),
        pl.lit(None, pl.String).alias("experiment"),
    )
    return answered, recorded
