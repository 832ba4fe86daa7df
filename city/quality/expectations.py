"""Derives expectations of a contract's rows and of a day's measures, and judges them in Polars.

`suites` has the same expectations judged by Great Expectations. Great Expectations writes documents of them for people,
and takes ten seconds and 250 MB to start. So it judges a day that has just ended, and this module judges today, every
hour.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import polars as pl

from city.contracts.model import Contract
from city.contracts.schema import bronze_schema

_SHOWN = 20  # unexpected values that a detail lists
# The highest value of each measure on a good day.
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
    """The table has exactly these columns."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class NotNull:
    """The column has a value in every row."""

    name: str
    column: str


@dataclass(frozen=True)
class Between:
    """The column's values are within the limits, both included.

    With `where` (column, value), only rows in which that column has that value count.
    """

    name: str
    column: str
    low: float | None = None
    high: float | None = None
    where: tuple[str, str] | None = None


@dataclass(frozen=True)
class InSet:
    """Each of the column's values is one of these."""

    name: str
    column: str
    values: tuple[object, ...]


@dataclass(frozen=True)
class MatchesRegex:
    """Each of the column's values matches the regular expression as a whole."""

    name: str
    column: str
    pattern: str


@dataclass(frozen=True)
class Unique:
    """No two rows have the same values in all of these columns."""

    name: str
    columns: tuple[str, ...]


Expectation = Columns | NotNull | Between | InSet | MatchesRegex | Unique


@dataclass(frozen=True)
class ExpectationResult:
    """The outcome of one expectation. It is `blocking` where tables that are made from the rows would be wrong."""

    name: str
    passed: bool
    blocking: bool
    detail: dict[str, object] = field(default_factory=dict)


def of_rows(contract: Contract) -> Iterator[Expectation]:
    """Yields the expectations of a contract's bronze rows.

    They are the schema, the completeness, range and choices of each field, the rules, and one row per offset of Kafka.
    """
    rules = [_rule_column(rule.name) for rule in contract.rules]
    yield Columns("schema", (*bronze_schema(contract), *rules))
    for f in contract.fields:
        if not f.nullable:
            yield NotNull(f"{f.name}_complete", f.name)
        if f.minimum is not None or f.maximum is not None:
            yield Between(f"{f.name}_in_range", f.name, f.minimum, f.maximum)
        if f.choices:
            yield InSet(f"{f.name}_known", f.name, tuple(f.choices))
        elif f.pattern:
            yield MatchesRegex(f"{f.name}_spelled", f.name, f.pattern)
    if quantities := contract.quantities:
        for q in quantities.choices:
            yield Between(f"{q.name}_in_range", quantities.value, q.minimum, q.maximum, where=(quantities.by, q.name))
    for rule, column in zip(contract.rules, rules, strict=True):
        yield InSet(f"rule_{rule.name}", column, (True,))
    yield Unique("coordinates_once", ("_partition", "_offset"))


def of_day() -> Iterator[Expectation]:
    """Yields the expectations of a day as a whole, which its measures must meet."""
    yield Between("not_empty", "rows", 1)
    for measure, limit in LIMITS.items():
        yield Between(measure.removesuffix("_share"), measure, 0, limit)


def with_rules(contract: Contract, rows: pl.DataFrame) -> pl.DataFrame:
    """Adds to bronze rows a column for each of the contract's rules: whether the row obeys it."""
    return rows.with_columns(pl.sql_expr(r.sql).fill_null(False).alias(_rule_column(r.name)) for r in contract.rules)


def judge(contract: Contract, rows: pl.DataFrame, day: pl.DataFrame) -> list[ExpectationResult]:
    """Judges bronze `rows`, if there are any, and `day`, the measures of their day."""
    judged = _judge_frame(of_rows(contract), with_rules(contract, rows), True) if rows.height else []
    return [*judged, *_judge_frame(of_day(), day, False)]


def _judge_frame(expectations: Iterable[Expectation], frame: pl.DataFrame, blocking: bool) -> list[ExpectationResult]:
    outcomes = []
    for expectation in expectations:
        if isinstance(expectation, Columns):
            differ = sorted(set(frame.columns) ^ set(expectation.columns))
            outcomes.append(
                ExpectationResult(expectation.name, not differ, blocking, {"observed_value": frame.columns})
            )
            continue
        if differ := sorted(_expected_columns(expectation) - set(frame.columns)):  # the schema says so already
            outcomes.append(ExpectationResult(expectation.name, False, blocking, {"missing_columns": differ}))
            continue
        bad = frame.filter(_unexpected_rows(expectation))
        count = frame.filter(_judged_rows(expectation)).height
        detail: dict[str, object] = {"element_count": count, "unexpected_count": bad.height}
        if bad.height:
            detail["unexpected_percent"] = 100 * bad.height / count
            detail["partial_unexpected_list"] = (
                bad.select(sorted(_expected_columns(expectation))).head(_SHOWN).to_dicts()
            )
        outcomes.append(ExpectationResult(expectation.name, bad.is_empty(), blocking, detail))
    return outcomes


def _unexpected_rows(expectation: Expectation) -> pl.Expr:
    """Returns the condition of a row that does not meet the expectation.

    A missing value is unexpected only where the column must be complete.
    """
    match expectation:
        case NotNull(column=column):
            return pl.col(column).is_null()
        case Between(column=column, low=low, high=high):
            value = pl.col(column)
            outside = [*([value < low] if low is not None else []), *([value > high] if high is not None else [])]
            return pl.any_horizontal(outside) & value.is_not_nan() & _judged_rows(expectation)
        case InSet(column=column, values=values):
            return pl.col(column).is_not_null() & ~pl.col(column).is_in(list(values))
        case MatchesRegex(column=column, pattern=pattern):
            return ~pl.col(column).str.contains(f"^(?:{pattern})$")
        case Unique(columns=columns):
            return pl.struct(columns).is_duplicated()
    raise AssertionError(expectation)


def _judged_rows(expectation: Expectation) -> pl.Expr:
    """Returns the condition of a row that the expectation is about."""
    return (
        pl.col(expectation.where[0]) == expectation.where[1]
        if isinstance(expectation, Between) and expectation.where
        else pl.lit(True)
    )


def _expected_columns(expectation: Expectation) -> set[str]:
    if isinstance(expectation, Columns | Unique):
        return set(expectation.columns)
    return {expectation.column} | (
        {expectation.where[0]} if isinstance(expectation, Between) and expectation.where else set()
    )


def _rule_column(name: str) -> str:
    return f"_rule_{name}"
