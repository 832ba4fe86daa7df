"""Records the daily predictions of a champion with their outcomes, and judges it by them."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import cast

import polars as pl

from city.lake.partitions import replace_partitions
from city.lake.snapshot import Snapshot
from city.lake.tables import open_table
from city.models.exported import Exported
from city.models.history import recorded_losses, view_rows
from city.models.model import Model, ModelError
from city.models.performance import Verdict, is_young, performance, verdicts
from city.models.predictions import (
    FOR,
    ID,
    LATENCY,
    LOSS,
    VERSION,
    add_outcomes,
    decay,
    predictions,
    schema,
    scores_schema,
)
from city.models.registry import Registry, Version
from city.settings import settings
from city.tables.model import DAY
from city_assets.training import read_truth


@dataclass(frozen=True)
class Judgement:
    """How good a champion is, by its predictions of some days."""

    metrics: dict[str, float]
    """Those of `performance`, of all days."""
    verdicts: list[Verdict]
    """One per promise of the model."""
    newest_day_metrics: dict[str, float]
    """Those of `performance`, of the newest day that has an outcome."""
    newest_outcome: datetime | None
    """The time of the newest outcome, or now if that is earlier: a clock that is wrong must not outdate later
    outcomes. None where there are no outcomes."""


def predict_days(model: Model, snapshot: Snapshot, registry: Registry, days: list[date]) -> pl.DataFrame:
    """Records the champion's predictions of the local days, with the outcomes that are known so far.

    Predicts from the view's rows. For a model that scores in the stream, takes the recorded scores instead. Replaces
    the days in `predictions/<model>`, and returns their rows.

    Raises ModelError if there is no champion yet.
    """
    champion = registry.at(model.name)
    if champion is None:
        raise ModelError(f"model {model.name!r} has no champion yet: train it (models/{model.name})")
    days_read = {day + timedelta(days=n) for day in days for n in (0, 1)}  # outcomes of an evening follow midnight
    rows = view_rows(model, snapshot).filter(pl.col(DAY).is_in(days_read)).collect()
    truth = read_truth(model, snapshot, cast("datetime | None", rows[model.view.time].min()))
    if model.stream is not None:
        scored = snapshot.scan(f"scores/{model.name}", scores_schema(model) | {DAY: pl.Date()})
        predicted = add_outcomes(model, scored.filter(pl.col(DAY).is_in(days)).collect(), rows, truth)
    else:
        predicted = predictions(model, Exported(model, registry.content(champion)), champion.number, rows, truth)
        row_days = rows.select(*model.view.entities, model.view.time, DAY)
        predicted = predicted.join(
            row_days, on=[*model.view.entities, model.view.time], maintain_order="left"
        ).with_columns(pl.lit(None, pl.String).alias(ID), pl.lit(None, pl.Float64).alias(LATENCY))
    path, columns = snapshot.root / "predictions" / model.name, schema(model)
    open_table(path, columns | {DAY: pl.Date()}, [DAY], may_add=columns.keys())
    chosen = predicted.filter(pl.col(DAY).is_in(days)).select(*columns, DAY)
    replace_partitions(path, [DAY], [chosen.lazy()], [(DAY, "in", [str(day) for day in days])])
    snapshot.release(f"predictions/{model.name}")
    return chosen


def judge_champion(
    model: Model, snapshot: Snapshot, registry: Registry, champion: Version, judged_rows: pl.DataFrame
) -> Judgement:
    """Judges the champion by its predictions of events after its training.

    `judged_rows` are predictions with their outcomes, as `predict_days` returns them.
    """
    trained = datetime.fromisoformat(champion.tags["trained_at"])
    champion_rows = judged_rows.filter(pl.col(VERSION) == champion.number, pl.col(model.view.time) > trained)
    metrics = performance(model, champion_rows)
    losses = recorded_losses(model, snapshot, champion.number, trained, settings().timezone)
    loss_decay = None if losses is None else decay(model, losses, champion.number, trained)
    intervals = Exported(model, registry.content(champion)).calibration.intervals
    now = datetime.now(UTC)
    young = is_young(registry.versions(model.name), now)
    with_outcome = champion_rows.filter(pl.col(LOSS).is_not_null())
    newest_outcome = cast("datetime | None", with_outcome[FOR].max())
    return Judgement(
        metrics,
        verdicts(model, metrics, intervals.coverage if intervals else None, loss_decay, young),
        performance(model, with_outcome.filter(pl.col(DAY) == pl.col(DAY).max())),
        None if newest_outcome is None else min(newest_outcome, now),
    )
