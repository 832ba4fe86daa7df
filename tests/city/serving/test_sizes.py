"""What a Parquet or Arrow body unpacks to is known, and bounded, before it is unpacked."""

import io
import struct
from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from city.serving import frame_body
from city.serving.arrow_size import arrow_size
from city.serving.frame_body import MOST_ROWS, MOST_UNPACKED_BYTES, read_frame
from city.serving.parquet_size import parquet_size
from city.serving.sizes import Size
from city.web.problems import Problem

PARQUET = "application/vnd.apache.parquet"
STREAM, FILE = "application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"
ROWS = 1_000
FRAME = pl.DataFrame(
    {
        "speed": np.arange(ROWS) / 7,
        "count": np.arange(ROWS),
        "rush_hour": np.arange(ROWS) % 2 == 0,
        "cell": [f"cell {n % 9}" for n in range(ROWS)],
        "nothing": [None] * ROWS,
        "day": pl.Series(range(ROWS)).cast(pl.Date),
        "kind": pl.Series([f"kind {n % 3}" for n in range(ROWS)], dtype=pl.Categorical),
    }
)


def parquet(frame: pl.DataFrame, compression: str = "zstd") -> bytes:
    into = io.BytesIO()
    frame.write_parquet(into, compression=compression)  # type: ignore[arg-type]
    return into.getvalue()


def arrow(frame: pl.DataFrame, compression: str = "zstd", is_file: bool = False) -> bytes:
    into = io.BytesIO()
    write = frame.write_ipc if is_file else frame.write_ipc_stream
    write(into, compression=compression)  # type: ignore[operator]
    return into.getvalue()


def by_pyarrow(table: pa.Table, **options: object) -> bytes:
    into = io.BytesIO()
    pq.write_table(table, into, **options)  # type: ignore[arg-type]
    return into.getvalue()


@pytest.mark.parametrize("compression", ["zstd", "lz4", "snappy", "gzip", "brotli", "uncompressed"])
def test_a_parquet_body_has_the_size_that_it_unpacks_to(compression: str) -> None:
    size = parquet_size(parquet(FRAME, compression))
    assert size.rows == ROWS
    assert FRAME.estimated_size() < size.bytes < 4 * FRAME.estimated_size()
    assert read_frame(PARQUET, parquet(FRAME, compression)).equals(FRAME)


@pytest.mark.parametrize(
    "options", [{}, {"data_page_version": "2.0", "row_group_size": 100}, {"use_dictionary": False}]
)
def test_other_writers_of_parquet_are_read(options: dict[str, object]) -> None:
    body = by_pyarrow(FRAME.drop("kind").to_arrow(), **options)
    assert parquet_size(body).rows == ROWS
    assert read_frame(f"{PARQUET}; version=1", body).height == ROWS


@pytest.mark.parametrize("compression", ["zstd", "lz4", "uncompressed"])
@pytest.mark.parametrize("is_file", [False, True])
def test_an_arrow_body_has_the_size_that_it_unpacks_to(compression: str, is_file: bool) -> None:
    body = arrow(FRAME, compression, is_file)
    size = arrow_size(body, is_file)
    assert size.rows == ROWS
    assert FRAME.estimated_size() < size.bytes < 10 * FRAME.estimated_size()
    assert read_frame(FILE if is_file else STREAM, body).equals(FRAME)


def test_batches_of_a_stream_are_added_up() -> None:
    into = pa.BufferOutputStream()
    table = FRAME.to_arrow()
    with pa.ipc.new_stream(into, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    body = into.getvalue().to_pybytes()
    assert arrow_size(body, is_file=False).rows == ROWS
    assert read_frame(STREAM, body).height == ROWS


def claimed(body: bytes, buffer_bytes: int, claims: int) -> bytes:
    """The body with one of its buffers' unpacked lengths changed."""
    was = struct.pack("<q", buffer_bytes)
    assert body.count(was)
    return body.replace(was, struct.pack("<q", claims), 1)


def with_page_size(body: bytes, values: np.ndarray, claims: int) -> bytes:
    """The body with the unpacked size of a page of float64 changed in the page's header alone."""
    was, now = (_varint(2 * size) for size in (values.nbytes, claims))
    assert len(was) == len(now)
    start = body.index(was)
    assert start < 20
    return body[:start] + now + body[start + len(was) :]


def _varint(value: int) -> bytes:
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    return bytes([*content, value])


def zeros(rows: int, columns: int) -> pl.DataFrame:
    return pl.DataFrame({f"x{n}": np.zeros(rows) for n in range(columns)})


def plain_pages(values: np.ndarray) -> bytes:
    table = pa.table({"x": pa.array(values)}, schema=pa.schema([pa.field("x", pa.float64(), nullable=False)]))
    options = {"data_page_size": 1 << 28, "max_rows_per_page": len(values), "write_statistics": False}
    return by_pyarrow(table, use_dictionary=False, compression="zstd", **options)


REPEATED = np.tile(np.arange(1_000.0), 300)
TEXTS = pl.DataFrame({"x": np.zeros(2_000), "text": ["x" * 200_000] * 2_000})
BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "rows of Parquet": (PARQUET, lambda: parquet(zeros(MOST_ROWS + 1, 2)), "500,001 rows"),
    "rows of a stream": (STREAM, lambda: arrow(zeros(MOST_ROWS + 1, 2)), "500,001 rows"),
    "rows of a file": (FILE, lambda: arrow(zeros(MOST_ROWS + 1, 2), is_file=True), "500,001 rows"),
    "rows without values": (STREAM, lambda: arrow(pl.DataFrame({"x": pl.Series([None] * 600_000)})), "600,000 rows"),
    "columns of Parquet": (PARQUET, lambda: parquet(zeros(100_000, 300)), "MB unpacked"),
    "columns of a stream": (STREAM, lambda: arrow(zeros(100_000, 300)), "MB unpacked"),
    "a buffer's claim": (STREAM, lambda: claimed(arrow(zeros(ROWS, 1)), 8 * ROWS, 1 << 40), "1,099,512 MB unpacked"),
    "a file's buffer": (FILE, lambda: claimed(arrow(zeros(ROWS, 1), is_file=True), 8 * ROWS, 1 << 33), "MB unpacked"),
    "a page's claim": (PARQUET, lambda: with_page_size(plain_pages(REPEATED), REPEATED, 133_000_000), ""),
    "one text in every row": (PARQUET, lambda: parquet(TEXTS), "400 MB unpacked"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_unpacked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    media, make, says = BOMBS[name]
    body = make()
    assert len(body) < 1_000_000
    if name == "a page's claim":  # 133 MB are allowed, but not 140 MB
        monkeypatch.setattr(frame_body, "MOST_UNPACKED_BYTES", 134_000_000)
        says = "135 MB unpacked"
    if name != "one text in every row":  # which the headers cannot tell

        def unpack(_: io.BytesIO) -> pl.DataFrame:
            raise AssertionError("was unpacked")

        monkeypatch.setitem(frame_body._READERS, media, (frame_body._READERS[media][0], unpack))  # type: ignore[arg-type]
    with pytest.raises(Problem) as refused:
        read_frame(media, body)
    assert refused.value.status == 413
    assert says in refused.value.detail


def test_what_cannot_be_bounded_is_refused_by_name() -> None:
    nested = pl.DataFrame({"x": [[1.0, 2.0]] * 9})
    for media, body in ((PARQUET, parquet(nested)), (STREAM, arrow(nested)), (FILE, arrow(nested, is_file=True))):
        with pytest.raises(Problem, match="nested columns: send flat ones"):
            read_frame(media, body)
    table = pa.table({"x": ["abc"] * 9})
    prefixed = by_pyarrow(table, use_dictionary=False, column_encoding={"x": "DELTA_BYTE_ARRAY"})
    with pytest.raises(Problem, match="write them plain, or with a dictionary"):
        read_frame(PARQUET, prefixed)
    for media in (PARQUET, STREAM, FILE):
        for body in (b"", b"PAR1", b"ARROW1\0\0" * 9, b"\xff" * 99, bytes(99)):
            with pytest.raises(Problem):
                read_frame(media, body)


@pytest.mark.parametrize("media", [PARQUET, STREAM, FILE])
def test_a_broken_body_is_the_callers_error(media: str) -> None:
    """Bytes changed, left out and cut off: a clear refusal or a frame, and never more than is allowed."""
    chance = np.random.default_rng(0)
    bodies = {PARQUET: parquet(FRAME), STREAM: arrow(FRAME), FILE: arrow(FRAME, is_file=True)}
    read, refused = 0, set[int]()
    for _ in range(300):
        body = bytearray(bodies[media])
        for place in chance.integers(0, len(body), chance.integers(1, 4)):
            body[place] = chance.integers(0, 256)
        if chance.random() < 0.3:
            del body[chance.integers(0, len(body)) :]
        try:
            assert read_frame(media, bytes(body)).estimated_size() < MOST_UNPACKED_BYTES
            read += 1
        except Problem as problem:
            refused.add(problem.status)
    assert read > 0
    assert refused
    assert refused <= {400, 413, 415, 422}


def test_sizes_are_of_the_largest_that_is_claimed() -> None:
    empty = parquet(FRAME.clear())
    assert parquet_size(empty).rows == 0
    with pytest.raises(Problem, match="0 rows"):
        read_frame(PARQUET, empty)
    assert arrow_size(b"", is_file=False) == Size(0, 0)
