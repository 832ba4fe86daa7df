"""Plans the mapping of a source: the expressions of the fields, and the checks of their values."""

from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from city.contracts.model import Kind
from city.contracts.schema import POLARS, TIMESTAMP
from city.sources.model import (
    ARRIVED,
    CITY_ZONE,
    EPOCHS,
    Always,
    Arrived,
    At,
    Joined,
    Part,
    Source,
    Value,
    field_of,
)
from city.sources.paths import alternatives
from city.sources.rows import MISFITS
from city.sources.times import ISO_8601, epoch_times, read_times
from city.sources.units import are_alike, conversion

TOPIC, ARRIVAL = "_topic", "_arrival"
_MISSING_NUMBERS = ("", "nan", "null", "none", "unavailable", "unknown", "n/a")
"""Words for a missing number, in lower case, of a source that accepts `nan`."""
_EXACT = 2.0**53
"""The first whole number whose neighbours a float cannot hold."""


@dataclass(frozen=True)
class Check:
    """A condition under which a row is wrong, and the text of the reason."""

    is_wrong: pl.Expr
    reason: pl.Expr


@dataclass(frozen=True)
class Measure:
    """The column of a measure's values, and the columns of the events that it becomes."""

    column: str
    columns: tuple[pl.Expr, ...]


@dataclass(frozen=True)
class Plan:
    """The steps of a mapping: `columns` with `checks`, then `measures` with `measure_checks`, then `joins`.

    A row that fails one of `checks` has no events; one that fails one of `measure_checks` may have some.
    """

    columns: tuple[pl.Expr, ...]
    checks: tuple[Check, ...]
    measures: tuple[Measure, ...]
    measure_checks: tuple[Check, ...]
    joins: tuple[tuple[pl.Expr, tuple[Check, ...]], ...]


def output(name: str) -> str:
    """Returns the column of a computed field or name. Paths have other columns."""
    return f"_out_{name}"


def _measure_column(name: str) -> str:
    return output(f"measure_{name}")


@lru_cache(maxsize=256)
def plan(source: Source, zone: str) -> Plan:
    """Plans a source's mapping. `zone` is the city's."""
    values = {**source.names, **source.fields}
    columns, checks, measures, measure_checks = list[pl.Expr](), list[Check](), list[Measure](), list[Check]()
    for name, value in values.items():
        if not isinstance(value, Joined):
            declared = field_of(source, name)
            kind = declared.kind if declared else "string"
            column, expected = _convert(source, name, value, kind, zone)
            columns.append(column.alias(output(name)))
            is_needed = declared is not None and not declared.nullable
            checks += _checks(source, name, value, output(name), expected, is_needed=is_needed)
    quantities = source.contract.quantities
    for name, value in source.measures.items():
        assert quantities is not None
        column, expected = _convert(source, name, value, "float", zone)
        columns.append(column.alias(_measure_column(name)))
        measure_checks += _checks(source, name, value, _measure_column(name), expected, is_needed=False)
        event = {
            quantities.by: pl.lit(name),
            quantities.unit: pl.lit(source.unit_of(name)),
            quantities.value: pl.col(_measure_column(name)),
        }
        event_columns = tuple(expression.alias(output(field)) for field, expression in event.items())
        measures.append(Measure(_measure_column(name), event_columns))
    if source.measures and not source.is_optional:
        measure_checks.append(_check_of_any_measure(source, measure_checks))
    joins = [_join(source, name, value) for name, value in values.items() if isinstance(value, Joined)]
    return Plan(tuple(columns), tuple(checks), tuple(measures), tuple(measure_checks), tuple(joins))


def _check_of_any_measure(source: Source, measure_checks: list[Check]) -> Check:
    """Returns the check that a row has a measure. A row with wrong measures has its reasons already."""
    has_none = pl.all_horizontal(pl.col(_measure_column(name)).is_null() for name in source.measures)
    is_wrong = pl.any_horizontal([pl.lit(value=False), *(check.is_wrong for check in measure_checks)])
    has_reasons = is_wrong | (pl.col(MISFITS).list.len() > 0)
    return Check(has_none & ~has_reasons, pl.lit(f"message: has none of {', '.join(source.measures)}"))


def _join(source: Source, name: str, value: Joined) -> tuple[pl.Expr, tuple[Check, ...]]:
    parts: list[pl.Expr] = []
    rest = value.template
    for reference in value.references:
        before, _, rest = rest.partition("{" + reference + "}")
        parts += [pl.lit(before), pl.col(output(reference)).cast(pl.String)]
    # An id has no spaces and no slashes, as the name of a device may have.
    text = pl.concat_str([*parts, pl.lit(rest)]).str.replace_all(r"[\s/]+", "-")
    declared = field_of(source, name)
    check = Check(pl.col(output(name)).is_null(), pl.lit(f"{name}: {value.template} has a missing part"))
    return text.alias(output(name)), (check,) if declared and not declared.nullable else ()


def raw_value(source: Source, value: Value) -> tuple[pl.Expr, str]:
    """Returns the raw value, and the words for the place that it comes from."""
    if isinstance(value, At):
        return pl.coalesce(alternatives(value.path)), value.path
    if isinstance(value, Arrived):
        return pl.col(ARRIVAL), "its arrival"
    if isinstance(value, Part):
        levels, number = pl.col(TOPIC).str.split("/"), source.parts[value.name]
        rest = levels.list.slice(number).list.join("/").replace("", None)
        level = rest if value.name == source.rest else levels.list.get(number, null_on_oob=True)
        return level, f"<{value.name}> of the MQTT topic"
    assert isinstance(value, Always)
    return pl.lit(value.value), "a constant"


def _convert(source: Source, name: str, value: Value, kind: Kind, zone: str) -> tuple[pl.Expr, str]:
    """Returns the value as the kind of its field (null where it cannot be converted), and what it is expected to be."""
    raw, _ = raw_value(source, value)
    unit = source.unit_of(name) if value.unit else None
    if value.words:
        converted, expected = _translate(value, raw), f"one of {', '.join(map(str, value.words))}"
    elif kind == "timestamp" and not isinstance(value, Always | Arrived):
        converted, expected = _to_time(value, raw, zone)
    elif kind == "integer" and not unit:
        converted, expected = _to_integer(source, raw), "a whole number of 64 bits"
    elif kind in ("float", "integer"):
        converted, expected = _to_number(source, raw), "a finite number"
    else:
        converted, expected = raw, f"a {kind}"
    if isinstance(value, At) and value.unit_at is not None and unit:
        converted = _by_unit(value, converted.cast(pl.Float64), unit)
        expected = f"a number in a known unit ({value.unit_at})"
    elif value.unit and unit:
        converted = convert(converted.cast(pl.Float64), value.unit, unit)
    if kind == "integer" and (unit or value.words):
        converted = converted.cast(pl.Float64).round().cast(pl.Int64, strict=False)
    if kind == "float":
        number = converted.cast(pl.Float64)
        converted = pl.when(number.is_finite()).then(number)
    if value.default is not None:
        is_arrival = value.default == ARRIVED and kind == "timestamp"
        default = pl.col(ARRIVAL) if is_arrival else pl.lit(value.default)
        converted = pl.when(raw.is_null()).then(default).otherwise(converted)
    return converted.cast(POLARS[kind]), expected


def _checks(source: Source, name: str, value: Value, column: str, expected: str, *, is_needed: bool) -> list[Check]:
    """Returns the checks of a converted value: that it could be converted, and, if `is_needed`, that it is there."""
    if isinstance(value, Always):
        return []
    raw, place = raw_value(source, value)
    text = raw.cast(pl.String)
    is_misread = raw.is_not_null() & pl.col(column).is_null()
    if "nan" in source.accepts:
        is_misread &= ~_is_missing_number(text)
    checks = [Check(is_misread, pl.format("{}: {} is not {}", pl.lit(place), text.str.head(60), pl.lit(expected)))]
    if is_needed:
        checks.append(Check(pl.col(column).is_null() & ~is_misread, pl.lit(f"{name}: nothing at {place}")))
    return checks


def _translate(value: Value, raw: pl.Expr) -> pl.Expr:
    words = {str(word): meaning for word, meaning in value.words.items()}
    text = raw.cast(pl.String)
    if value.keeps_words:
        return text.replace(words)
    return text.replace_strict(list(words), list(words.values()), default=None)


def _to_time(value: Value, raw: pl.Expr, city_zone: str) -> tuple[pl.Expr, str]:
    if value.form in EPOCHS:
        return epoch_times(raw, value.form), f"a number of {EPOCHS[value.form][1]} since 1970"
    zone = city_zone if value.zone == CITY_ZONE else value.zone
    return raw.map_batches(lambda text: read_times(text, zone), TIMESTAMP), ISO_8601


def _to_number(source: Source, raw: pl.Expr) -> pl.Expr:
    if not source.accepts & {"text", "comma", "nan"}:
        return raw.cast(pl.Float64, strict=False)
    return _digits(source, raw).cast(pl.Float64, strict=False)


def _to_integer(source: Source, raw: pl.Expr) -> pl.Expr:
    """Returns whole numbers exactly; null for others, and for floats that do not hold each whole number."""
    digits = _digits(source, raw)
    number = digits.cast(pl.Float64, strict=False)
    is_whole = (number == number.round()) & (number.abs() < _EXACT)
    return pl.coalesce(digits.cast(pl.Int64, strict=False), pl.when(is_whole).then(number).cast(pl.Int64, strict=False))


def _digits(source: Source, raw: pl.Expr) -> pl.Expr:
    text = raw.cast(pl.String).str.strip_chars()
    return text.str.replace(r"^([+-]?\d+),(\d+)$", "$1.$2") if "comma" in source.accepts else text


def convert(number: pl.Expr, unit: str, to: str) -> pl.Expr:
    """Converts a number of one unit to another, and rounds off what the arithmetic adds. Raises UnitError."""
    factor, summand = conversion(unit, to)
    return number if (factor, summand) == (1.0, 0.0) else (number * factor + summand).round_sig_figs(12)


def _by_unit(value: At, number: pl.Expr, to: str) -> pl.Expr:
    """Converts a number from the unit that the message names; null where that is unknown, or measures another thing."""
    assert value.unit is not None
    assert value.unit_at is not None
    word = pl.col(value.unit_at)
    converted = [pl.when(word.is_null()).then(convert(number, value.unit, to))]
    for name, unit in value.units.items():
        if are_alike(unit, to):
            converted.append(pl.when(word == name).then(convert(number, unit, to)))
    return pl.coalesce(converted)


def _is_missing_number(text: pl.Expr) -> pl.Expr:
    return text.str.strip_chars().str.to_lowercase().is_in(list(_MISSING_NUMBERS)).fill_null(value=False)
