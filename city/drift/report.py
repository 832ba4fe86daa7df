"""Renders a drift report as one HTML page: the comparison, the drifted features, and histograms of each feature."""

from datetime import datetime
from html import escape

import numpy as np
import polars as pl
from polars import selectors as cs

_WIDTH, _HEIGHT, _BARS = 260, 70, 24
_REFERENCE, _CURRENT = "#4477aa", "#ee6677"  # colour-blind people can distinguish these, too (Tol, bright)
_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}"
    "tr.drifted td{font-weight:600;background:#fdecee}figure{display:inline-block;margin:.6rem}"
)


def page(name: str, rows: pl.DataFrame, reference: pl.DataFrame, current: pl.DataFrame, at: datetime) -> str:
    """Renders the page of `rows`, which `Monitor.compare` returned; drifted features are first.

    It contains histograms and no raw values, so that it stays small.
    """
    drifted = rows.filter("drifted")
    verdict = (
        f"{drifted['feature'].n_unique()} of {len(reference.columns)} columns drifted" if drifted.height else "No drift"
    )
    figures = "".join(_render_figure(column, reference[column], current[column]) for column in reference.columns)
    ordered = rows.sort("drifted", "effect", descending=[True, True])
    lines = "".join(
        f"<tr{' class=drifted' if r['drifted'] else ''}><td>{escape(r['feature'])}</td><td>{r['measure']}</td>"
        f"<td>{r['statistic']:.4g}</td><td>{r['p_value']:.3g}</td><td>{r['effect']:.3g}</td>"
        f"<td>{'yes' if r['drifted'] else ''}</td></tr>"
        for r in ordered.iter_rows(named=True)
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Drift of {escape(name)}</title>'
        f"<style>{_STYLE}</style><h1>Drift of {escape(name)}</h1><p>{verdict}. {current.height:,} rows up to "
        f'{at:%Y-%m-%d %H:%M} UTC (<b style="color:{_CURRENT}">now</b>) against {reference.height:,} of the pinned '
        f'reference (<b style="color:{_REFERENCE}">then</b>).</p>{figures}<table><tr><th>feature</th><th>measure</th>'
        f"<th>statistic</th><th>p, corrected</th><th>effect</th><th>drifted</th></tr>{lines}</table></html>"
    )


def _render_figure(name: str, was: pl.Series, now: pl.Series) -> str:
    shares = _numeric_shares(was, now) if was.to_frame().select(cs.numeric()).width else _category_shares(was, now)
    top = max([*shares[0], *shares[1]], default=0) or 1
    step = _WIDTH / max(len(shares[0]), 1)
    shapes = "".join(
        f'<rect x="{n * step + offset:.1f}" y="{_HEIGHT * (1 - share / top):.1f}" width="{step / 2:.1f}" '
        f'height="{_HEIGHT * share / top:.1f}" fill="{colour}"/>'
        for values, colour, offset in ((shares[0], _REFERENCE, 0.0), (shares[1], _CURRENT, step / 2))
        for n, share in enumerate(values)
    )
    return (
        f'<figure><svg role="img" aria-label="{escape(name)}, then and now" width="{_WIDTH}" height="{_HEIGHT}">'
        f"{shapes}</svg><figcaption>{escape(name)}</figcaption></figure>"
    )


def _numeric_shares(was: pl.Series, now: pl.Series) -> tuple[list[float], list[float]]:
    """Returns the share of each sample's values in each of `_BARS` common bins."""
    samples = [s.cast(pl.Float64).fill_nan(None).drop_nulls().to_numpy() for s in (was, now)]
    pooled = np.concatenate(samples)
    if not pooled.size:
        return [], []
    low, high = np.quantile(pooled, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, _BARS + 1)
    counts = [np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / max(len(values), 1) for values in samples]
    return counts[0].tolist(), counts[1].tolist()


def _category_shares(was: pl.Series, now: pl.Series) -> tuple[list[float], list[float]]:
    """Returns the share of each of the `_BARS` most frequent values in each sample."""
    names = pl.concat([was, now]).cast(pl.String).value_counts(sort=True)[was.name].head(_BARS).to_list()
    shares = [[float((s.cast(pl.String).eq_missing(n)).mean() or 0) for n in names] for s in (was, now)]
    return shares[0], shares[1]
