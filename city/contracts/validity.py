"""Decides which events are valid, by vectorised expressions. Each has the reason that a rejected row is given."""

import functools
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from city.contracts.model import MAX_STRING, Contract, Field

MISSING = "missing or null"
"""The reason against a row whose field must not be null, and is."""
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"


@dataclass(frozen=True)
class Check:
    """One check: `broken` is true for a row that fails (null passes); `reason` is the text in its quarantine record."""

    broken: pl.Expr
    reason: str


def checks(contract: Contract) -> list[Check]:
    """Lists all checks of a contract. They apply to a frame of its event schema with the column `_arrived`."""
    all_checks = [check for field in contract.fields for check in _field_checks(field)]
    time, arrival = pl.col(contract.event_time), pl.col("_arrived")
    all_checks += [
        Check(
            time > arrival + contract.max_ahead, f"{contract.event_time}: more than {words(contract.max_ahead)} ahead"
        ),
        Check(time < arrival - contract.max_age, f"{contract.event_time}: more than {words(contract.max_age)} old"),
    ]
    if quantities := contract.quantities:
        by, value = pl.col(quantities.by), pl.col(quantities.value)
        unit_of = {quantity.name: quantity.unit for quantity in quantities.choices}
        unit = by.replace_strict(list(unit_of), list(unit_of.values()), default=None, return_dtype=pl.String)
        all_checks.append(
            Check(pl.col(quantities.unit) != unit, f"{quantities.unit}: not the unit of its {quantities.by}")
        )
        for quantity in quantities.choices:
            outside = ~value.is_between(quantity.minimum, quantity.maximum)
            reason = (
                f"{quantities.value}: {quantity.name} outside {span(quantity.minimum, quantity.maximum, quantity.unit)}"
            )
            all_checks.append(Check((by == quantity.name) & outside, reason))
    all_checks += [
        Check(~pl.sql_expr(rule.sql).fill_null(False), f"{rule.name}: {rule.description}") for rule in contract.rules
    ]
    return all_checks


def split(contract: Contract, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Splits a frame into its valid rows, and the others with a column `reasons` (list of strings, never empty)."""
    broken, with_reasons = _compile_checks(contract)
    mask = frame.select(broken).to_series()
    if not mask.any():
        return frame, frame.clear().with_columns(reasons=pl.lit([], dtype=pl.List(pl.String)))
    return frame.filter(~mask), frame.filter(mask).with_columns(with_reasons)


@functools.lru_cache(maxsize=64)
def _compile_checks(contract: Contract) -> tuple[pl.Expr, pl.Expr]:
    all_checks = checks(contract)
    reasons = [pl.when(check.broken.fill_null(False)).then(pl.lit(check.reason)) for check in all_checks]
    return (
        pl.any_horizontal([check.broken.fill_null(False) for check in all_checks]),
        pl.concat_list(reasons).list.drop_nulls().alias("reasons"),
    )


def _field_checks(field: Field) -> list[Check]:
    column, name = pl.col(field.name), field.name
    field_checks = []
    if not field.nullable:
        field_checks.append(Check(column.is_null(), f"{name}: {MISSING}"))
    if field.kind == "float":
        field_checks.append(Check(~column.is_finite(), f"{name}: not a finite number"))
    if field.minimum is not None or field.maximum is not None:
        low = pl.lit(False) if field.minimum is None else column < field.minimum
        high = pl.lit(False) if field.maximum is None else column > field.maximum
        field_checks.append(Check(low | high, f"{name}: outside {span(field.minimum, field.maximum, field.unit)}"))
    if field.choices:
        field_checks.append(Check(~column.is_in(list(field.choices)), f"{name}: not one of {', '.join(field.choices)}"))
    elif field.kind == "string":
        if field.pattern:
            field_checks.append(
                Check(~column.str.contains(f"^(?:{field.pattern})$"), f"{name}: does not match {field.pattern}")
            )
        field_checks.append(Check(column.str.len_bytes() > MAX_STRING, f"{name}: longer than {MAX_STRING} bytes"))
        field_checks.append(Check(column.str.contains(_CONTROL), f"{name}: holds a control character"))
    return field_checks


def span(minimum: float | None, maximum: float | None, unit: str | None) -> str:
    """Formats a range in words: `0 to 500 AQI`, `at least 0`."""
    unit = f" {unit}" if unit else ""
    if minimum is None:
        return f"at most {maximum:g}{unit}"
    if maximum is None:
        return f"at least {minimum:g}{unit}"
    return f"{minimum:g} to {maximum:g}{unit}"


def words(duration: timedelta) -> str:
    """Formats a duration in words: `30 days`, `2 minutes`."""
    for unit, seconds in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count, rest = divmod(duration.total_seconds(), seconds)
        if count and not rest:
            return f"{count:g} {unit}{'s' if count > 1 else ''}"
    return f"{duration.total_seconds():g} seconds"
