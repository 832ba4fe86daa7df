"""Small Markdown tables and charts for an asset's metadata in the UI."""

import base64
from collections.abc import Mapping
from html import escape

import dagster as dg
import polars as pl

Metadata = dict[str, dg.MetadataValue | dg.TableColumnLineage | dict[str, int] | list[str] | float | str | None]
"""The metadata of a materialization or of a check, by name."""
_WIDTH = 120
_HEIGHT, _BAR, _GAP = 80, 12, 3


def markdown(frame: pl.DataFrame) -> str:
    """Returns a frame as a Markdown table, with each value as text.

    Bytes may hold anything, so they are written as Python literals.
    """
    lines = [" | ".join(frame.columns), " | ".join("---" for _ in frame.columns)]
    for row in frame.iter_rows():
        cells = (str(value)[:_WIDTH].replace("|", "\\|").replace("\n", " ") for value in row)
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def bars(values: Mapping[str, float]) -> str:
    """Returns a bar chart of values by label, as a Markdown image.

    Each bar has its label and value as its tooltip. The scale begins at 0.
    """
    top = max(values.values(), default=0) or 1
    shapes = []
    for number, (label, value) in enumerate(values.items()):
        height = round(_HEIGHT * value / top, 1)
        shapes.append(
            f'<rect x="{number * (_BAR + _GAP)}" y="{_HEIGHT - height}" width="{_BAR}" height="{height}" '
            f'fill="#4f43dd"><title>{escape(label)}: {value:,}</title></rect>'
        )
    width = max(1, len(values)) * (_BAR + _GAP)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT}">{"".join(shapes)}</svg>'
    picture = base64.b64encode(svg.encode()).decode()
    labels = list(values) or [""]
    return f"![rows by day](data:image/svg+xml;base64,{picture})\n\n{labels[0]} to {labels[-1]}; the highest is {top:,}"
