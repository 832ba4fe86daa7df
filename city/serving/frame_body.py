"""Reads Parquet and Arrow bodies of predictions. Their size is known before anything is unpacked."""

import io
from collections.abc import Callable, Mapping
from typing import Any, cast

import polars as pl
from polars import selectors as cs
from polars.exceptions import PanicException

from city.serving.arrow_size import arrow_size
from city.serving.parquet_size import parquet_size
from city.serving.sizes import Size
from city.web.problems import Problem

MOST_ROWS = 500_000
MOST_UNPACKED_BYTES = 300_000_000
"""Limit of a Parquet or Arrow body together with the columns made from it. Twenty features of MOST_ROWS rows take
240 MB."""


def read_frame(media: str, body: bytes) -> pl.DataFrame:
    """Reads a Parquet or an Arrow body of content type `media`. Row count and size come from the body's headers and are
    checked before anything is unpacked. Raises Problem for an unknown content type, for a body that cannot be read, and
    for one that is empty or too large."""
    kind = media.partition(";")[0].strip().lower()
    if kind not in _READERS:
        raise Problem(415, f"{kind[:80]!r} is not read here: send application/json, {', '.join(_READERS)}")
    measure, read = _READERS[kind]
    try:
        size = measure(body)
        _check_size(size.rows, size.bytes)
        frame = cast(pl.DataFrame, read(io.BytesIO(body)))
    except Problem:
        raise
    except (Exception, PanicException) as error:  # the readers document no exception types
        raise Problem(400, f"the body is no {kind}, or none that is read here: {str(error)[:200]}") from None
    if not frame.height:
        raise Problem(413, f"0 rows: give 1 to {MOST_ROWS:,}")
    _check_size(frame.height, _count_text_bytes(frame))
    return frame


def _count_text_bytes(frame: pl.DataFrame) -> int:
    """Counts the bytes of all texts as the response will contain them. A text that is stored once in a dictionary may
    be repeated in every row."""
    lengths = [column.str.len_bytes() for column in frame.select(cs.string())]
    lengths += [column.bin.size() for column in frame.select(cs.binary())]
    return sum(int(length.cast(pl.UInt64).sum()) for length in lengths)


def _check_size(rows: int, size: int) -> None:
    if rows > MOST_ROWS:
        raise Problem(413, f"{rows:,} rows: give 1 to {MOST_ROWS:,}")
    if size > MOST_UNPACKED_BYTES:
        raise Problem(
            413,
            f"{size / 1e6:,.0f} MB unpacked: give at most {MOST_UNPACKED_BYTES / 1e6:,.0f} MB, in fewer rows or "
            "columns",
        )


_READERS: Mapping[str, tuple[Callable[[bytes], Size], Callable[[io.BytesIO], Any]]] = {
    "application/vnd.apache.parquet": (parquet_size, pl.read_parquet),
    "application/vnd.apache.arrow.stream": (lambda body: arrow_size(body, is_file=False), pl.read_ipc_stream),
    "application/vnd.apache.arrow.file": (lambda body: arrow_size(body, is_file=True), pl.read_ipc),
}
