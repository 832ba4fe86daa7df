"""Turns a model's output for the rows of a batch into frames: of the answers, and of their record."""

from datetime import datetime

import polars as pl

from city.arrays import Floats
from city.models.predictions import answers
from city.serving.batching import Rows
from city.serving.versions import LoadedVersion
from city.web.keys import Caller


def build_frames(
    version: LoadedVersion,
    rows: Rows,
    output: Floats,
    id_prefix: str,
    at: datetime,
    caller: Caller,
    entity: str | None,
    run_seconds: float,
    features: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Builds the answers to rows (n, inputs) as a frame, and the same answers with the further columns of the record.
    Ids begin with `id_prefix`. `at` is the time of the answers, and `run_seconds` the duration of the run. `features`
    are the view's columns of the rows, where more than the inputs are known."""
    model = version.model
    frame = answers(model, version.exported.calibration, output, features).with_columns(
        pl.format(f"{id_prefix}.{{}}", pl.int_range(pl.len())).alias("id"), pl.lit(version.number).alias("version")
    )
    inputs = pl.from_numpy(rows, list(model.inputs)).with_columns(pl.all().fill_nan(None))
    record = frame.with_columns(
        pl.lit(at).alias("at"),
        pl.lit("champion").alias("role"),
        pl.lit(caller.name).alias("caller"),
        pl.lit(entity, pl.String).alias("entity"),
        inputs.select(pl.struct(pl.all()).struct.json_encode()).to_series().alias("inputs"),
        pl.lit(run_seconds * 1000).alias("latency_ms"),
        pl.lit(False).alias("cached"),
        pl.lit(None, pl.String).alias("experiment"),
    )
    return frame, record
