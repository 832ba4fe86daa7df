"""Which events are valid, as vectorised expressions, each with the reason that a rejected row is given."""

import functools
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from city.contracts.model import MAX_STRING, Contract, Field

_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"


@dataclass(frozen=True)
class Check:
    """`broken` is true or null for a row that fails; `reason` is what its quarantine record says."""

    broken: pl.Expr
    reason: str


def checks(contract: Contract) -> list[Check]:
    """All checks of a contract, on a frame of its event schema with the column `_arrived`."""
    found = [check for field in contract.fields for check in _field_checks(field)]
    time, arrived = pl.col(contract.event_time), pl.col("_arrived")
    found += [
        Check(
            time > arrived + contract.max_ahead, f"{contract.event_time}: more than {words(contract.max_ahead)} ahead"
        ),
        Check(time < arrived - contract.max_age, f"{contract.event_time}: more than {words(contract.max_age)} old"),
    ]
    if quantities := contract.quantities:
        by, value = pl.col(quantities.by), pl.col(quantities.value)
        unit_of = {quantity.name: quantity.unit for quantity in quantities.of}
        unit = by.replace_strict(list(unit_of), list(unit_of.values()), default=None, return_dtype=pl.String)
        found.append(Check(pl.col(quantities.unit) != unit, f"{quantities.unit}: not the unit of its {quantities.by}"))
        for quantity in quantities.of:
            outside = ~value.is_between(quantity.minimum, quantity.maximum)
            reason = (
                f"{quantities.value}: {quantity.name} outside {span(quantity.minimum, quantity.maximum, quantity.unit)}"
            )
            found.append(Check((by == quantity.name) & outside, reason))
    found += [Check(~pl.sql_expr(rule.sql).fill_null(False), f"{rule.name}: {rule.means}") for rule in contract.rules]
    return found


def split(contract: Contract, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The valid rows, and the others with a column `reasons` (list of strings, never empty)."""
    broken, with_reasons = _compiled(contract)
    mask = frame.select(broken).to_series()
    if not mask.any():
        return frame, frame.clear().with_columns(reasons=pl.lit([], dtype=pl.List(pl.String)))
    return frame.filter(~mask), frame.filter(mask).with_columns(with_reasons)


@functools.lru_cache(maxsize=64)
def _compiled(contract: Contract) -> tuple[pl.Expr, pl.Expr]:
    found = checks(contract)
    said = [pl.when(check.broken.fill_null(False)).then(pl.lit(check.reason)) for check in found]
    return (
        pl.any_horizontal([check.broken.fill_null(False) for check in found]),
        pl.concat_list(said).list.drop_nulls().alias("reasons"),
    )


def _field_checks(field: Field) -> list[Check]:
    column, name = pl.col(field.name), field.name
    found = []
    if not field.nullable:
        missing = "missing, null, or not an ISO 8601 time" if field.kind == "timestamp" else "missing or null"
        found.append(Check(column.is_null(), f"{name}: {missing}"))
    if field.kind == "float":
        found.append(Check(~column.is_finite(), f"{name}: not a finite number"))
    if field.minimum is not None or field.maximum is not None:
        low = pl.lit(False) if field.minimum is None else column < field.minimum
        high = pl.lit(False) if field.maximum is None else column > field.maximum
        found.append(Check(low | high, f"{name}: outside {span(field.minimum, field.maximum, field.unit)}"))
    if field.choices:
        found.append(Check(~column.is_in(list(field.choices)), f"{name}: not one of {', '.join(field.choices)}"))
    elif field.kind == "string":
        if field.pattern:
            found.append(
                Check(~column.str.contains(f"^(?:{field.pattern})$"), f"{name}: does not match {field.pattern}")
            )
        found.append(Check(column.str.len_bytes() > MAX_STRING, f"{name}: longer than {MAX_STRING} bytes"))
        found.append(Check(column.str.contains(_CONTROL), f"{name}: holds a control character"))
    return found


def span(minimum: float | None, maximum: float | None, unit: str | None) -> str:
    """A range in words: `0 to 500 AQI`, `at least 0`."""
    unit = f" {unit}" if unit else ""
    if minimum is None:
        return f"at most {maximum:g}{unit}"
    if maximum is None:
        return f"at least {minimum:g}{unit}"
    return f"{minimum:g} to {maximum:g}{unit}"


def words(duration: timedelta) -> str:
    """A duration in words: `30 days`, `2 minutes`."""
    for unit, seconds in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count, rest = divmod(duration.total_seconds(), seconds)
        if count and not rest:
            return f"{count:g} {unit}{'s' if count > 1 else ''}"
    return f"{duration.total_seconds():g} seconds"
