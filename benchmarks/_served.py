"""Trains the platform's declared models on public data, and predicts as they serve: by the exported ONNX model."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl

from city.contracts.model import Contract
from city.features.views import View
from city.models import examples
from city.models.fitting import FittedModel, fit
from city.models.model import Model
from city.sources.mapping import map_messages, to_json
from city.sources.model import Source
from city.streaming.decode import decode
from city.streaming.records import RawBatch
from city.tables.model import Table


def as_bronze(source: Source, messages: list[bytes]) -> pl.DataFrame:
    """Carries messages through a source and its contract, as the stream does. Each arrives at its event's time.

    Raises ValueError for messages that the source or the contract rejects.
    """
    contract = source.contract
    mapped = map_messages(source, messages)
    if mapped.rejected:
        row, reasons = next(iter(mapped.rejected.items()))
        raise ValueError(f"{source.name}: {len(mapped.rejected)} messages are no events; {messages[row]!r}: {reasons}")
    bronze, rejects = decode_events(contract, mapped.events)
    if rejects.height:
        count = mapped.events.height
        raise ValueError(f"{contract.name} rejects {rejects.height} of {count} events: {rejects.row(0, named=True)}")
    return bronze


def decode_events(contract: Contract, events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns the rows of bronze of events that arrive at their own time, and the quarantine records of the others."""
    count = events.height
    arrived = events[contract.event_time].dt.epoch("us").to_numpy()
    values: list[bytes | None] = [*to_json(contract, events)]
    raw = RawBatch(values, np.zeros(count, np.int32), np.arange(count), arrived, {0: 0}, {0: count})
    return decode(contract, raw, {})


def on_public_data(model: Model, table: Table) -> Model:
    """Returns a declared model for the features of a table that no domain declares.

    The table has the columns of the model's own view, made by the same transform, and those of its label.
    """
    return replace(model, features=table.name, own_view=View(table))


def judge_by_protocol(
    model: Model,
    rows: pl.DataFrame,
    held_out_from: datetime,
    *,
    truth: pl.DataFrame | None = None,
    validation: float = 0.15,
    tell: Callable[[str], None],
) -> FittedModel:
    """Fits a model on the rows whose truth is known before `held_out_from`, and judges it on the rows from then on.

    That is the platform's own training, but for the split, which a paper's protocol gives. `truth` is the table with
    the outcomes. `validation` is the share of the training rows on which parameters are searched; with 0 the model's
    defaults are used. `FittedModel.predicted` has the predictions of the exported model for `parts.held_out`.
    """
    latest = rows[model.view.time].max()
    assert isinstance(latest, datetime)
    return fit(
        model,
        rows,
        champion=None,
        now=latest,
        truth=truth,
        split=lambda labelled: examples.split(model, labelled, validation, held_out_from=held_out_from),
        progress=tell,
    )
