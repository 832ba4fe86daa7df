"""Derives what is read of a source's messages: the paths, their types, and the schema by which Polars parses them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

import polars as pl

from city.sources.model import ROOT, At, Source, Value, field_of
from city.sources.paths import Step, alternatives, steps
from city.sources.values import Leaf

UP = "^."
"""The prefix of a path that begins at the message, in a source with items."""
TYPES: dict[Leaf, pl.DataType] = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "boolean": pl.Boolean(),
    "text": pl.String(),
}
Node = Any
"""What is read of a JSON value: of an object a dict of nodes, of a list a list with one node, of others a type."""


@dataclass(frozen=True)
class Shape:
    """What is read of a source's messages: the type of each path, and the path of the list of items."""

    paths: Mapping[str, Leaf]
    items: str | None

    __hash__ = object.__hash__

    @cached_property
    def above(self) -> dict[str, Leaf]:
        """The paths that begin at the message, without their prefix."""
        if self.items is None:
            return dict(self.paths)
        return {path.removeprefix(UP): leaf for path, leaf in self.paths.items() if path.startswith(UP)}

    @cached_property
    def inside(self) -> dict[str, Leaf]:
        """The paths that begin at an item."""
        return {path: leaf for path, leaf in self.paths.items() if self.items and not path.startswith(UP)}

    @cached_property
    def tree(self) -> dict[str, Node]:
        """The nodes of a message."""
        tree = _tree(self.above)
        return tree if self.items is None else _merge(tree, _nest(steps(self.items), [_tree(self.inside)]))

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """The schema by which Polars parses a message."""
        return {name: _type(node) for name, node in self.tree.items()}

    @cached_property
    def keys(self) -> frozenset[str]:
        """The keys that stand on the paths."""
        paths = [*self.above, *self.inside, *([self.items] if self.items not in (None, ROOT) else [])]
        every = [step for path in paths for step in steps(path)]
        return frozenset(name for step in every for name in (step.name, step.key) if name)


@lru_cache(maxsize=256)
def shape_of(source: Source) -> Shape:
    """Derives the shape of a source's messages.

    A path that is read as two types is a number where both are numbers, else a text.
    """
    paths: dict[str, Leaf] = {}
    for name, value in [*source.names.items(), *source.fields.items(), *source.measures.items()]:
        if isinstance(value, At):
            leaf = _leaf(source, name, value)
            for path in alternatives(value.path):
                other = paths.get(path, leaf)
                paths[path] = leaf if other == leaf else "number" if {leaf, other} == {"number", "integer"} else "text"
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
    if source.accepts & {"text", "comma", "nan"}:
        return "text"
    return "integer" if kind == "integer" and not value.unit else "number"


def _tree(paths: Mapping[str, Leaf]) -> dict[str, Node]:
    tree: Node = {}
    for path, leaf in paths.items():
        tree = _merge(tree, _nest(steps(path), TYPES[leaf]))
    return cast("dict[str, Node]", tree)


def _nest(path: Sequence[Step], leaf: Node) -> Node:
    if not path:
        return leaf
    step, inner = path[0], _nest(path[1:], leaf)
    if step.place is not None:
        return [inner]
    return {step.name: [_merge({step.key: pl.String()}, inner)] if step.key else inner}


def _merge(node: Node, other: Node) -> Node:
    if isinstance(node, dict) and isinstance(other, dict):
        return node | {name: _merge(node[name], inner) if name in node else inner for name, inner in other.items()}
    if isinstance(node, list) and isinstance(other, list):
        return [_merge(node[0], other[0])]
    return node


def _type(node: Node) -> pl.DataType:
    if isinstance(node, dict):
        return pl.Struct({name: _type(inner) for name, inner in node.items()})
    return pl.List(_type(node[0])) if isinstance(node, list) else node
