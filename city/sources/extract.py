"""Reads the values at a source's paths from raw messages: one column for each path, one row for each event.

The fast path is columnar: Polars parses a chunk of messages at once, by a schema that has only these paths. Where it
refuses a chunk, each of its messages is read alone, which gives the reasons.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import polars as pl

from city.sources.gtfs import feed_to_json
from city.sources.model import At, Format, FormatError, Source, Value, field_of
from city.sources.ngsi import entities_to_json
from city.sources.paths import Step, alternatives, steps
from city.sources.values import Leaf, fit, follow, kind_of

ROW, ROOT, UP = "_row", "$", "^."
"""The column with a message's index, the path of a message that is a list, and the prefix of a path above an item."""
MISFITS = "_misfits"
"""The column with the values of a row that have a wrong type, and are null: where (which item), path, and why."""
_MISFITS = pl.List(pl.Struct({"where": pl.String, "path": pl.String, "told": pl.String}))
_NO_MISFITS = pl.lit([], _MISFITS).alias(MISFITS)
_CHUNK = 8192
_BOM = b"\xef\xbb\xbf"
_TYPES: dict[Leaf, pl.DataType] = {"number": pl.Float64(), "boolean": pl.Boolean(), "text": pl.String()}

_READERS: dict[Format, Callable[[bytes], bytes]] = {"gtfs_realtime": feed_to_json, "ngsi": entities_to_json}
"""How messages of other formats become JSON."""

Reasons = dict[int, list[str]]
"""The reasons against messages, by their index."""


def extract(source: Source, payloads: Sequence[bytes]) -> tuple[pl.DataFrame, Reasons]:
    """Reads the values at the source's paths.

    Returns a frame with a row for each event and a column for each path, and `_row`, the index of its message; and the
    reasons for each message that cannot be read.
    """
    shape, refused, frames = shape_of(source), Reasons(), []
    if (reader := _READERS.get(source.format)) is not None:
        payloads = _read_all(reader, payloads, refused)
    for first in range(0, len(payloads), _CHUNK):
        chunk = [_trimmed(source, payload) for payload in payloads[first : first + _CHUNK]]
        frame = _read_chunk(shape, chunk)
        if frame is None:
            frame = _read_one_by_one(source, shape, chunk, refused, first)
        frames.append(frame.with_columns(pl.col(ROW) + first))
    return pl.concat([pl.DataFrame(schema=shape.schema), *frames]), refused


def _read_all(reader: Callable[[bytes], bytes], payloads: Sequence[bytes], refused: Reasons) -> list[bytes]:
    """Returns messages of another format as JSON: an empty one, whose reason is told already, for what is none."""
    found = []
    for number, payload in enumerate(payloads):
        try:
            found.append(reader(payload))
        except FormatError as error:
            refused[number] = [f"message: {error}"]
            found.append(b"")
    return found


@dataclass(frozen=True)
class Shape:
    """What is read of a source's messages: the type of each path, and the path of the list of items."""

    paths: Mapping[str, Leaf]
    items: str | None

    __hash__ = object.__hash__

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The types of the columns of `extract`."""
        return {**{path: _TYPES[leaf] for path, leaf in self.paths.items()}, ROW: pl.Int64(), MISFITS: _MISFITS}

    def split(self) -> tuple[dict[str, Leaf], dict[str, Leaf]]:
        """Returns the paths from the message, and those from an item; each without its prefix."""
        if self.items is None:
            return dict(self.paths), {}
        above = {path.removeprefix(UP): leaf for path, leaf in self.paths.items() if path.startswith(UP)}
        return above, {path: leaf for path, leaf in self.paths.items() if not path.startswith(UP)}


@lru_cache(maxsize=256)
def shape_of(source: Source) -> Shape:
    """Derives the shape of a source's messages. A path that is read both as text and as a number is text."""
    paths: dict[str, Leaf] = {}
    for name, value in [*source.names.items(), *source.fields.items(), *source.measures.items()]:
        if isinstance(value, At):
            leaf = _leaf(source, name, value)
            for path in alternatives(value.path):
                paths[path] = leaf if paths.get(path, leaf) == leaf else "text"
            if value.unit_at is not None:
                paths[value.unit_at] = "text"
    for path in source.when:
        paths[when_column(source, path)] = "text"
    return Shape(paths, source.items)


def when_column(source: Source, path: str) -> str:
    """Returns the column of a path of the source's `when`, which begins at the message."""
    return path if source.items is None else UP + path


def _leaf(source: Source, name: str, value: Value) -> Leaf:
    declared = field_of(source, name)
    kind = "float" if name in source.measures else declared.kind if declared else "string"
    if value.words or kind in ("string", "timestamp"):
        return "text"
    if kind == "boolean":
        return "boolean"
    return "text" if source.reads & {"text", "comma", "nan"} else "number"


def _trimmed(source: Source, payload: bytes) -> bytes:
    return payload.removeprefix(_BOM) if "bom" in source.reads else payload


def _read_chunk(shape: Shape, payloads: Sequence[bytes]) -> pl.DataFrame | None:
    """Reads messages that are all of the shape. Returns None where Polars refuses one, or may have misread one."""
    text = b"\n".join(b'{"$":%b}' % payload for payload in payloads) if shape.items == ROOT else b"\n".join(payloads)
    if text.count(b"\n") != len(payloads) - 1:
        return None
    above, inside = shape.split()
    tree = _tree(above)
    if shape.items is not None:
        tree = _merge(tree, _nest(steps(shape.items), [_tree(inside)]))
    try:
        frame = pl.read_ndjson(text, schema={name: _type(node) for name, node in tree.items()})
    except pl.exceptions.PolarsError:
        return None
    if frame.height != len(payloads):
        return None
    columns = [_at(path).alias(UP + path if shape.items is not None else path) for path in above]
    if shape.items is None:
        found = frame.select(*columns, pl.int_range(pl.len(), dtype=pl.Int64).alias(ROW))
    else:
        rows = frame.select(*columns, _at(shape.items).alias("_item"), pl.int_range(pl.len()).alias(ROW))
        if rows["_item"].list.len().fill_null(0).min() == 0:
            return None  # a message without items is refused, with its reason
        rows = rows.explode("_item")
        inner = [_at(path, pl.col("_item")).alias(path) for path in inside]
        found = rows.select(*(pl.col(UP + path) for path in above), *inner, ROW)
    found = found.with_columns(_NO_MISFITS).select(*shape.schema)
    texts = [pl.col(name).str.contains(r"^[\[{]") for name, kind in shape.schema.items() if kind == pl.String]
    if texts and found.select(pl.any_horizontal(texts).any()).item():
        return None  # Polars reads an object in place of a text as text
    return found


def _at(path: str, root: pl.Expr | None = None) -> pl.Expr:
    found = root
    for step in steps(path):
        if step.place is not None:
            assert found is not None  # a path begins with a name
            found = found.list.get(step.place, null_on_oob=True)
            continue
        found = pl.col(step.name) if found is None else found.struct.field(step.name)
        if step.key:
            item = pl.element()
            found = found.list.eval(item.filter(item.struct.field(step.key) == step.value)).list.first()
    assert found is not None
    return found


_Node = Any
"""What is read of a JSON value: of an object a dict of nodes, of a list a list with one node, of others a type."""


def _tree(paths: Mapping[str, Leaf]) -> dict[str, _Node]:
    tree: _Node = {}
    for path, leaf in paths.items():
        tree = _merge(tree, _nest(steps(path), _TYPES[leaf]))
    return cast("dict[str, _Node]", tree)


def _nest(path: Sequence[Step], leaf: _Node) -> _Node:
    if not path:
        return leaf
    step, inner = path[0], _nest(path[1:], leaf)
    if step.place is not None:
        return [inner]
    return {step.name: [_merge({step.key: pl.String()}, inner)] if step.key else inner}


def _merge(node: _Node, other: _Node) -> _Node:
    if isinstance(node, dict) and isinstance(other, dict):
        return node | {name: _merge(node[name], inner) if name in node else inner for name, inner in other.items()}
    if isinstance(node, list) and isinstance(other, list):
        return [_merge(node[0], other[0])]
    return node


def _type(node: _Node) -> pl.DataType:
    if isinstance(node, dict):
        return pl.Struct({name: _type(inner) for name, inner in node.items()})
    return pl.List(_type(node[0])) if isinstance(node, list) else node


def _read_one_by_one(
    source: Source, shape: Shape, payloads: Sequence[bytes], refused: Reasons, first: int
) -> pl.DataFrame:
    """Reads each message alone, and adds the reasons against those that cannot be read."""
    rows: list[dict[str, Any]] = []
    for number, payload in enumerate(payloads):
        try:
            message = _load(source, payload)
            rows += [{**event, ROW: number} for event in _events(source, shape, message)]
        except _UnreadableError as error:
            refused.setdefault(first + number, [reason[:300] for reason in error.reasons])
    return pl.DataFrame(rows, schema=shape.schema, orient="row")


class _UnreadableError(Exception):
    def __init__(self, *reasons: str) -> None:
        super().__init__(*reasons)
        self.reasons = reasons


def _load(source: Source, payload: bytes) -> Any:
    def constant(word: str) -> None:
        if "nan" not in source.reads:
            raise ValueError(f"{word} is not a JSON number (this source does not read it)")

    try:
        return json.loads(payload.decode(), parse_constant=constant)
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"message: not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise _UnreadableError(f"message: not JSON: {error}") from None


def _events(source: Source, shape: Shape, message: Any) -> Iterator[dict[str, Any]]:
    """Yields the values of each event of a message."""
    above, inside = shape.split()
    kinds = {path: follow(message, path) for path in source.when}
    if any((kinds[path] or "") not in words for path, words in source.when.items()):
        # It is not of this source, so nothing of it need be readable.
        told = {when_column(source, path): kind if isinstance(kind, str) else None for path, kind in kinds.items()}
        yield dict.fromkeys(shape.paths) | told | {MISFITS: []}
        return
    if shape.items is None:
        yield _values(above, message, "", "")
        return
    items = message if shape.items == ROOT else follow(message, shape.items)
    if not isinstance(items, list):
        where = "message" if shape.items == ROOT else shape.items
        raise _UnreadableError(f"{where}: {kind_of(items)}, not a list with items")
    shared = _values(above, {} if shape.items == ROOT else message, UP, "")
    for number, item in enumerate(items):
        if isinstance(item, dict):
            values = _values(inside, item, "", f"item {number}: ")
            yield {**shared, **values, MISFITS: [*shared[MISFITS], *values[MISFITS]]}
        else:
            told = {"where": f"item {number}", "path": "", "told": f"{kind_of(item)}, not an object"}
            yield {**dict.fromkeys(shape.paths), MISFITS: [told]}


def _values(paths: Mapping[str, Leaf], message: Any, prefix: str, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise _UnreadableError(f"message: {kind_of(message)}, not an object")
    values: dict[str, Any] = {}
    misfits: list[dict[str, str]] = []
    for path, leaf in paths.items():
        value = follow(message, path)
        try:
            values[prefix + path] = fit(leaf, value)
        except ValueError as error:
            values[prefix + path] = None
            misfits.append({"where": where, "path": prefix + path, "told": str(error)})
    return {**values, MISFITS: misfits}
