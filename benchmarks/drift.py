"""Drift with known change points, and long streams without any: what each measure finds, how late, and how often it
cries wolf. A stream is judged window by window against its first 2,000 rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from city.arrays import Floats
from city.drift import Monitor, Thresholds, measure_loss_growth

FEATURES, REFERENCE, WINDOW = 8, 2_000, 500
BEFORE, AFTER = 6, 8
"""Windows before the change, and after it."""
STREAMS, STABLE_STREAMS, STABLE_WINDOWS = 12, 24, 60
KINDS = ("mean", "variance", "one_feature", "covariance", "gradual", "concept")


def run(tell: Callable[[str], None]) -> dict[str, Any]:
    """Of each kind of drift by each measure: `rate`, the share of streams in which it was found, and `delay` in rows
    (median). `false_alarms`: the share of windows of stable streams, over the one of `alpha` that is allowed."""
    thresholds = Thresholds()
    figures: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        streams = [_stream(np.random.default_rng([KINDS.index(kind), n]), kind, BEFORE, AFTER) for n in range(STREAMS)]
        figures[kind] = _found([_alarms(stream, thresholds) for stream in streams])
        best = max(figures[kind], key=lambda m: (figures[kind][m]["rate"], -(figures[kind][m]["delay"] or 0)))
        tell(f"{kind}: by {best} {figures[kind][best]['rate']:.0%}, {figures[kind][best]['delay']:.0f} rows late")
    calm = [
        _alarms(_stream(np.random.default_rng([99, n]), None, STABLE_WINDOWS, 0), thresholds)
        for n in range(STABLE_STREAMS)
    ]
    false = {name: round(float(np.mean([alarms[name] for alarms in calm])), 5) for name in calm[0]}
    tell(f"false alarms: {false}")
    return {
        "bench": "drift",
        "alpha": thresholds.alpha,
        "window_rows": WINDOW,
        "stable_windows": STABLE_STREAMS * STABLE_WINDOWS,
        "false_alarms": false,
        "found": figures,
        "found_by_some_measure": {kind: max(m["rate"] for m in figures[kind].values()) for kind in KINDS},
    }


Stream = tuple[Floats, Floats]


def _stream(chance: np.random.Generator, kind: str | None, before: int, after: int) -> Stream:
    """Rows (n, 8), correlated, two of them skewed, and a model's losses on them; the change comes after `before`
    windows."""
    rows = REFERENCE + (before + after) * WINDOW
    change = REFERENCE + before * WINDOW
    mix = np.eye(FEATURES) + 0.3 * np.tri(FEATURES, k=-1) / np.sqrt(FEATURES)
    x = chance.normal(size=(rows, FEATURES)) @ mix.T
    later = x[change:]
    if kind == "mean":
        later += 0.4
    elif kind == "variance":
        later *= 1.5
    elif kind == "one_feature":
        later[:, 3] += 0.8
    elif kind == "covariance":
        spread = later[:, 1].std()
        later[:, 1] = 0.6 * later[:, 0] + 0.8 * later[:, 1]
        later[:, 1] *= spread / later[:, 1].std()
    elif kind == "gradual":
        later += np.linspace(0, 1.2, len(later))[:, None]
    x[:, -2:] = np.exp(x[:, -2:] / 2)
    wrong = np.full(rows, 0.1)
    if kind == "concept":
        wrong[change:] = 0.2
    return x, (chance.random(rows) < wrong).astype(float)


def _alarms(stream: Stream, thresholds: Thresholds) -> dict[str, list[bool]]:
    """By measure, of each window after the reference."""
    x, losses = stream
    names = [f"f{n}" for n in range(FEATURES)]
    monitor = Monitor(pl.DataFrame(x[:REFERENCE], schema=names), thresholds)
    alarms: dict[str, list[bool]] = {}
    for begin in range(REFERENCE, len(x), WINDOW):
        rows = monitor.compare(pl.DataFrame(x[begin : begin + WINDOW], schema=names))
        for measure, drifted in rows.group_by("measure", maintain_order=True).agg(pl.col("drifted").any()).iter_rows():
            alarms.setdefault(measure, []).append(drifted)
        worse = measure_loss_growth(losses[:REFERENCE], losses[begin : begin + WINDOW])
        alarms.setdefault("losses", []).append(
            worse.p_value <= thresholds.alpha and worse.effect >= thresholds.effects["losses"]
        )
    return alarms


def _found(streams: list[dict[str, list[bool]]]) -> dict[str, dict[str, Any]]:
    result = {}
    for measure in streams[0]:
        delays = [
            (alarms[measure][BEFORE:].index(True) + 1) * WINDOW for alarms in streams if any(alarms[measure][BEFORE:])
        ]
        result[measure] = {
            "rate": round(len(delays) / len(streams), 3),
            "delay": float(np.median(delays)) if delays else None,
        }
    return result
