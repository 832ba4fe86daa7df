"""Faults that are injected into SKAB's anomaly-free rows: what the anomaly model's parameters are chosen on.

A run of SKAB begins anywhere in these rows: 400 normal rows, then 750 rows of which the ones in the middle are faulty.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks._rig import COLUMNS, RIG, features_of
from city.arrays import Floats
from city.models.examples import inputs
from city.models.model import Model
from city.models.wandering import WanderingRegion

NORMAL_ROWS, SCORED_ROWS = 400, 750
KINDS = ("step", "ramp", "thermal", "shift of all", "variance")
STRENGTHS = (2.0, 4.0, 8.0, 16.0)
"""In standard deviations of the normal rows: from faults that are hardly found to those that are hardly missed."""
SHARE = 0.25
"""The share of normal rows that is beyond each of the two borders, by the rule that sets them."""
_FAULTY = (SCORED_ROWS // 5, SCORED_ROWS * 7 // 10)
"""The first faulty row, and the first that is normal again, of the scored ones."""
_BETWEEN_FAULTS = (3, 25)
"""The rows that it takes until a fault is there, or gone."""
_SLOW_SIGNALS = 3


@dataclass(frozen=True)
class InjectedRun:
    """Rows of the model's inputs (NORMAL_ROWS + SCORED_ROWS, inputs), and which of them are faulty."""

    inputs: Floats
    is_faulty: NDArray[np.bool_]


def normal_runs(model: Model, file: Path, count: int) -> Iterator[InjectedRun]:
    """Yields runs without a fault, which begin at so many places of the anomaly-free rows."""
    rows = _read(file)
    for begin in _begins(rows, count):
        run = rows[begin : begin + NORMAL_ROWS + SCORED_ROWS]
        yield InjectedRun(_inputs(model, run), np.zeros(run.height, bool))


def faulty_runs(model: Model, file: Path, count: int, seed: int = 0) -> Iterator[InjectedRun]:
    """Yields a run with a fault of each of the KINDS, at each of so many places of the anomaly-free rows."""
    rows, chance = _read(file), np.random.default_rng(seed)
    for begin in _begins(rows, count):
        run = rows[begin : begin + NORMAL_ROWS + SCORED_ROWS]
        signals = run.select(pl.col(list(COLUMNS.values())).cast(pl.Float64)).to_numpy()
        for kind in KINDS:
            changed, is_faulty = with_fault(signals, kind, float(chance.choice(STRENGTHS)), chance)
            possible = np.clip(changed, *np.array([(signal.minimum, signal.maximum) for signal in RIG.signals]).T)
            columns = pl.DataFrame(possible, schema=list(COLUMNS.values())).cast(pl.String)
            yield InjectedRun(_inputs(model, run.with_columns(columns)), is_faulty)


def with_fault(
    signals: Floats, kind: str, strength: float, chance: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_]]:
    """Returns the signals (n, s) of a run with a fault, and which rows are faulty (n,).

    `step` and `ramp` are of one to four signals. `thermal` is the slow response of those that change slowly anyway,
    which goes on after the fault. `shift of all` moves every signal, and `variance` the noise of one to four signals.
    """
    jitter = int(chance.integers(-40, 40))
    begin, end = (NORMAL_ROWS + edge + jitter for edge in _FAULTY)
    moment, spread = np.arange(len(signals)), signals[:NORMAL_ROWS].std(0)
    is_faulty = (moment >= begin) & (moment < end)
    rise, fall = chance.integers(*_BETWEEN_FAULTS, 2)
    strengths = np.clip((moment - begin) / rise, 0, 1) * np.clip(1 - (moment - end) / fall, 0, 1)
    chosen = chance.choice(len(spread), chance.choice([1, 1, 2, 2, 3, 4]), replace=False)
    direction = np.zeros(len(spread))
    direction[chosen] = chance.choice([-1, 1], len(chosen))
    if kind == "variance":
        factor = np.ones(len(spread))
        factor[chosen] = chance.choice([1 + strength, 1 / (1 + strength)])
        middle = np.array([np.convolve(column, np.full(15, 1 / 15), "same") for column in signals.T]).T
        return middle + (signals - middle) * (1 + (factor - 1) * strengths[:, None]), is_faulty
    if kind == "ramp":
        strengths = np.minimum(strengths, np.clip(2 * (moment - begin) / (end - begin), 0, 1))
    elif kind == "thermal":
        strengths = _lagged(is_faulty, float(chance.uniform(30, 100)))
        slowness = np.diff(signals[:NORMAL_ROWS], axis=0).std(0) / np.maximum(spread, 1e-12)
        direction = np.where(np.argsort(np.argsort(slowness)) < _SLOW_SIGNALS, chance.choice([-1, 0, 1]) or 1, 0)
    elif kind == "shift of all":
        direction = chance.normal(size=len(spread)) / np.sqrt(2)
    return signals + strengths[:, None] * direction * spread * strength, is_faulty


def borders(model: Model, runs: list[InjectedRun]) -> tuple[float, float]:
    """Returns the `threshold` and the `limit` of WanderingRegion: SHARE of the scored rows is beyond each of them.

    The runs have no faults. The two borders are set each by itself, because faults are beyond either of them.
    """
    related, alone = [], []
    for run in runs:
        region = _fitted(model, run)
        scored = run.inputs[NORMAL_ROWS:]
        related.append(region.relations_.predict(scored[:, : region.related_])[:, 0] * region.threshold)
        alone.append(region.squares(scored).sum(1) * region.limit)
    return (
        float(np.quantile(np.concatenate(related), 1 - SHARE)),
        float(np.quantile(np.concatenate(alone), 1 - SHARE)),
    )


def alarms_of(model: Model, runs: list[InjectedRun]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns which of the scored rows of all runs are faulty, and which are anomalies by the model."""
    truth = np.concatenate([run.is_faulty[NORMAL_ROWS:] for run in runs])
    flags = [_fitted(model, run).predict(run.inputs[NORMAL_ROWS:])[:, 0] > 1 for run in runs]
    return truth, np.concatenate(flags)


def _fitted(model: Model, run: InjectedRun) -> WanderingRegion:
    region = model.estimator(model.defaults)
    assert isinstance(region, WanderingRegion)
    return region.fit(run.inputs[:NORMAL_ROWS])


def _lagged(is_faulty: NDArray[np.bool_], rows: float) -> Floats:
    """Returns the response (n,) of first order: it is at 63 % of its end so many rows after the fault has begun."""
    response, level = np.zeros(len(is_faulty)), 0.0
    for row, target in enumerate(is_faulty):
        level += (float(target) - level) / (rows if target else rows / 2)
        response[row] = level
    return response


def _read(file: Path) -> pl.DataFrame:
    return pl.read_csv(file, separator=";", infer_schema=False)


def _begins(rows: pl.DataFrame, count: int) -> list[int]:
    return np.linspace(0, rows.height - NORMAL_ROWS - SCORED_ROWS, count).astype(int).tolist()


def _inputs(model: Model, run: pl.DataFrame) -> Floats:
    return inputs(model, features_of("anomaly-free", run)).astype(float)
