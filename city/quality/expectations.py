"""What a contract lets one expect of its rows and of a day's measures, declared once; and how it is judged in Polars.

`suites` has the same expectations judged by Great Expectations, which makes documents for people of them and takes ten
seconds and 250 MB for its start alone: that is for a day that has just ended. Today is judged every hour, here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from city.contracts.model import Contract
from city.contracts.schema import bronze_schema

_SHOWN = 20  # unexpected values
# The most of each measure that a good day has.
LIMITS = {
    "malformed_share": 0.002,
    "out_of_range_share": 0.002,
    "duplicate_share": 0.002,
    "slow_share": 0.01,
    "out_of_order_share": 0.01,
    "missing_share": 0.005,
    "unknown_share": 0.0,
    "stuck_share": 0.01,
    "drifting_share": 0.02,
}


@dataclass(frozen=True)
class Columns:
    """The table has these columns, and no others."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Complete:
    """The column has a value in each row."""

    name: str
    column: str


@dataclass(frozen=True)
class Between:
    """The column's values are within the limits, both included; with `where` (column, value), in these rows only."""

    name: str
    column: str
    low: float | None = None
    high: float | None = None
    where: tuple[str, str] | None = None


@dataclass(frozen=True)
class Among:
    """The column's values are some of these."""

    name: str
    column: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Spelled:
    """The whole of each of the column's values matches the regular expression."""

    name: str
    column: str
    pattern: str


@dataclass(frozen=True)
class Once:
    """No two rows have the same values in all of these columns."""

    name: str
    columns: tuple[str, ...]


Expectation = Columns | Complete | Between | Among | Spelled | Once


@dataclass(frozen=True)
class Judged:
    """One expectation's outcome; `blocking` where what is made from the rows would be wrong."""

    name: str
    passed: bool
    blocking: bool
    detail: dict[str, Any] = field(default_factory=dict)


def of_rows(contract: Contract) -> Iterator[Expectation]:
    """The schema; the completeness, range and choices of each field; the rules; and one row for an offset of Kafka."""
    rules = [_rule(rule.name) for rule in contract.rules]
    yield Columns("schema", (*bronze_schema(contract), *rules))
    for f in contract.fields:
        if not f.nullable:
            yield Complete(f"{f.name}_complete", f.name)
        if f.minimum is not None or f.maximum is not None:
            yield Between(f"{f.name}_in_range", f.name, f.minimum, f.maximum)
        if f.choices:
            yield Among(f"{f.name}_known", f.name, tuple(f.choices))
        elif f.pattern:
            yield Spelled(f"{f.name}_spelled", f.name, f.pattern)
    if measured := contract.quantities:
        for q in measured.of:
            yield Between(f"{q.name}_in_range", measured.value, q.minimum, q.maximum, where=(measured.by, q.name))
    for rule, column in zip(contract.rules, rules, strict=True):
        yield Among(f"rule_{rule.name}", column, (True,))
    yield Once("coordinates_once", ("_partition", "_offset"))


def of_day() -> Iterator[Expectation]:
    """What is expected of a day as a whole, from its measures."""
    yield Between("not_empty", "rows", 1)
    for measure, most in LIMITS.items():
        yield Between(measure.removesuffix("_share"), measure, 0, most)


def with_rules(contract: Contract, rows: pl.DataFrame) -> pl.DataFrame:
    """Bronze rows, and for each of the contract's rules whether it holds."""
    return rows.with_columns(pl.sql_expr(r.sql).fill_null(False).alias(_rule(r.name)) for r in contract.rules)


def judge(contract: Contract, rows: pl.DataFrame, day: pl.DataFrame) -> list[Judged]:
    """Judges bronze `rows`, where there are any, and the `day`'s measures."""
    judged = _judge(of_rows(contract), with_rules(contract, rows), True) if rows.height else []
    return [*judged, *_judge(of_day(), day, False)]


def _judge(expectations: Iterable[Expectation], frame: pl.DataFrame, blocking: bool) -> list[Judged]:
    found = []
    for one in expectations:
        if isinstance(one, Columns):
            differ = sorted(set(frame.columns) ^ set(one.columns))
            found.append(Judged(one.name, not differ, blocking, {"observed_value": frame.columns}))
            continue
        if differ := sorted(_columns(one) - set(frame.columns)):  # the schema says so already
            found.append(Judged(one.name, False, blocking, {"missing_columns": differ}))
            continue
        bad = frame.filter(_unexpected(one))
        count = frame.filter(_where(one)).height
        detail: dict[str, Any] = {"element_count": count, "unexpected_count": bad.height}
        if bad.height:
            detail["unexpected_percent"] = 100 * bad.height / count
            detail["partial_unexpected_list"] = bad.select(sorted(_columns(one))).head(_SHOWN).to_dicts()
        found.append(Judged(one.name, bad.is_empty(), blocking, detail))
    return found


def _unexpected(one: Expectation) -> pl.Expr:
    """The rows in which it does not hold. What is not there is missed only where the column must be complete."""
    match one:
        case Complete(column=column):
            return pl.col(column).is_null()
        case Between(column=column, low=low, high=high):
            value = pl.col(column)
            outside = [*([value < low] if low is not None else []), *([value > high] if high is not None else [])]
            return pl.any_horizontal(outside) & value.is_not_nan() & _where(one)
        case Among(column=column, values=values):
            return pl.col(column).is_not_null() & ~pl.col(column).is_in(list(values))
        case Spelled(column=column, pattern=pattern):
            return ~pl.col(column).str.contains(f"^(?:{pattern})$")
        case Once(columns=columns):
            return pl.struct(columns).is_duplicated()
    raise AssertionError(one)


def _where(one: Expectation) -> pl.Expr:
    return pl.col(one.where[0]) == one.where[1] if isinstance(one, Between) and one.where else pl.lit(True)


def _columns(one: Expectation) -> set[str]:
    if isinstance(one, Columns | Once):
        return set(one.columns)
    return {one.column} | ({one.where[0]} if isinstance(one, Between) and one.where else set())


def _rule(name: str) -> str:
    return f"_rule_{name}"
