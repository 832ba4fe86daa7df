"""Turns messages of a source's shape into events of its contract: vectorised, with the reasons for the rest. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import polars as pl

from city.contracts.model import Contract
from city.contracts.schema import POLARS, TIMESTAMP
from city.sources.extract import MISFITS, ROW, Reasons, extract, when_column
from city.sources.model import ARRIVED, CITY_ZONE, Always, Arrived, At, Joined, Part, Source, Value, field_of
from city.sources.paths import alternatives
from city.sources.times import ISO_8601, epoch_times, read_times
from city.sources.units import are_alike, conversion

TOPIC, ARRIVAL = "_topic", "_arrival"
_REASONS = "_reasons"
_MOST_REASONS = 20
_NONE = ("", "nan", "null", "none", "unavailable", "unknown", "n/a")
"""Words for a missing number, in lower case, of a source that reads `nan`."""


@dataclass(frozen=True)
class Mapped:
    """What became of messages."""

    events: pl.DataFrame
    """The contract's fields of each event, and `_row`, the index of its message."""
    rejected: Reasons
    """The reasons against messages of which no event, or not every event, could be made."""
    ignored: list[int]
    """The messages that are no events, by the source's `when`."""


def map_messages(
    source: Source,
    payloads: Sequence[bytes],
    topics: Sequence[str] = (),
    zone: str = "UTC",
    arrived: datetime | None = None,
) -> Mapped:
    """Maps messages to events.

    `topics` are the MQTT topics, one for each message, of a source that names parts of them. `zone` is the city's.
    `arrived` is when the messages arrived, for devices without a clock.
    """
    frame, rejected = extract(source, payloads)
    frame = frame.with_columns(pl.lit(arrived, TIMESTAMP).alias(ARRIVAL))
    if source.parts:
        of_message = pl.Series(TOPIC, topics or [None] * len(payloads), dtype=pl.String)
        frame = frame.with_columns(of_message.gather(frame[ROW]))
    every = frame[ROW].unique()
    for path, words in source.when.items():
        frame = frame.filter(pl.col(when_column(source, path)).fill_null("").is_in(list(words)))
    ignored = every.filter(~every.is_in(frame[ROW].unique().implode())).sort().to_list()
    for value in (*source.names.values(), *source.fields.values()):
        if value.skips:
            frame = frame.filter(_is_of_interest(value, _origin(source, value)[0]))
    frame = _without_misfits(source, frame, rejected)
    for step in _steps(source, zone):
        frame = step.apply(frame)
    broken = frame.filter(pl.col(_REASONS).list.len() > 0)
    for row, reasons in broken.select(ROW, _REASONS).iter_rows():
        _add_reasons(rejected, row, reasons)
    events = frame.filter(pl.col(_REASONS).list.len() == 0)
    schema = {f.name: POLARS[f.kind] for f in source.contract.fields}
    missing = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in events.columns]
    return Mapped(events.with_columns(missing).select(*schema, ROW), rejected, ignored)


def _add_reasons(rejected: Reasons, row: int, reasons: Iterable[str]) -> None:
    known = rejected.setdefault(row, [])
    known += [reason for reason in reasons if reason not in known]
    del known[_MOST_REASONS:]


def _without_misfits(source: Source, frame: pl.DataFrame, rejected: Reasons) -> pl.DataFrame:
    """Adds the reasons against values of a wrong type, and drops the rows that need them.

    Where only a measure has a wrong type, the other measures of the message are events.
    """
    wrong = frame.filter(pl.col(MISFITS).list.len() > 0)
    if wrong.is_empty():
        return frame
    needed = {
        path
        for value in (*source.names.values(), *source.fields.values())
        if isinstance(value, At)
        for path in alternatives(value.path)
    } | {value.unit_at for value in source.measures.values() if isinstance(value, At) and value.unit_at}
    dropped = []
    for number, row, misfits in wrong.with_row_index("_n").select("_n", ROW, MISFITS).iter_rows():
        _add_reasons(rejected, row, (f"{misfit['where']}{misfit['path']}: {misfit['told']}" for misfit in misfits))
        if any(misfit["path"] in needed or misfit["path"] == "" for misfit in misfits):
            dropped.append(number)
    kept = wrong.with_row_index("_n").filter(~pl.col("_n").is_in(dropped)).drop("_n")
    return pl.concat([frame.filter(pl.col(MISFITS).list.len() == 0), kept]).sort(ROW, maintain_order=True)


@dataclass(frozen=True)
class _Step:
    """Columns that are computed together, and the reasons against rows for which one cannot be."""

    columns: tuple[pl.Expr, ...]
    reasons: tuple[pl.Expr, ...]
    measures: tuple["_Measure", ...] = ()
    is_optional: bool = False

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        told = pl.concat_list([pl.lit([], pl.List(pl.String)), *self.reasons]).list.drop_nulls()
        earlier = [pl.col(_REASONS)] if _REASONS in frame.columns else []
        if earlier:
            told = pl.concat_list([*earlier, told])
        frame = frame.with_columns(*self.columns, told.alias(_REASONS))
        return _measured(frame, self.measures, self.is_optional) if self.measures else frame


@dataclass(frozen=True)
class _Measure:
    column: str
    fields: dict[str, pl.Expr]


@lru_cache(maxsize=256)
def _steps(source: Source, zone: str) -> list[_Step]:
    """Plans a source's mapping: first what comes from the message, then its measures, then what joins names."""
    plain = {n: v for n, v in {**source.names, **source.fields}.items() if not isinstance(v, Joined)}
    joined = {n: v for n, v in {**source.names, **source.fields}.items() if isinstance(v, Joined)}
    computed = [_value(source, name, value, zone) for name, value in plain.items()]
    measures, of_measures = [], []
    quantities = source.contract.quantities
    for name, value in source.measures.items():
        assert quantities is not None
        column, reason = _value(source, name, value, zone, prefix="_measure_")
        computed.append((column, reason))
        fields = {
            quantities.by: pl.lit(name),
            quantities.unit: pl.lit(source.unit_of(name)),
            quantities.value: pl.col(f"_measure_{name}"),
        }
        measures.append(_Measure(f"_measure_{name}", fields))
        of_measures.append(name)
    columns, reasons = zip(*computed, strict=True)
    first = _Step(tuple(columns), tuple(r for r in reasons if r is not None), tuple(measures), source.is_optional)
    return [first, *(_join(source, name, value) for name, value in joined.items())]


def _measured(frame: pl.DataFrame, measures: Iterable[_Measure], is_optional: bool) -> pl.DataFrame:
    """Returns a row for each measure that has a value; a row without any is kept, with its reason.

    If `is_optional`, a row without any is dropped.
    """
    measures = list(measures)
    parts = []
    for number, measure in enumerate(measures):
        rows = frame.filter(pl.col(measure.column).is_not_null() & (pl.col(_REASONS).list.len() == 0))
        fields = [expression.alias(name) for name, expression in measure.fields.items()]
        parts.append(rows.with_columns(*fields, _measure=pl.lit(number)))
    empty = pl.all_horizontal(pl.col(measure.column).is_null() for measure in measures)
    names = ", ".join(measure.column.removeprefix("_measure_") for measure in measures)
    # A row whose values have a wrong type has its reasons already.
    is_told = pl.lit(is_optional) | (pl.col(MISFITS).list.len() > 0)
    nothing = pl.when(empty & ~is_told & (pl.col(_REASONS).list.len() == 0)).then(
        pl.lit(f"message: has none of {names}")
    )
    without = frame.with_columns(pl.concat_list([pl.col(_REASONS), nothing]).list.drop_nulls().alias(_REASONS))
    parts.append(without.filter(pl.col(_REASONS).list.len() > 0))
    return pl.concat(parts, how="diagonal").sort(ROW, "_measure", maintain_order=True).drop("_measure")


def _join(source: Source, name: str, value: Joined) -> _Step:
    parts: list[pl.Expr] = []
    rest = value.template
    for reference in value.references:
        before, _, rest = rest.partition("{" + reference + "}")
        parts += [pl.lit(before), pl.col(reference).cast(pl.String)]
    # An id has no spaces and no slashes, as the name of a device may have.
    text = pl.concat_str([*parts, pl.lit(rest)]).str.replace_all(r"[\s/]+", "-")
    declared = field_of(source, name)
    reason = pl.when(text.is_null()).then(pl.lit(f"{name}: {value.template} has a missing part"))
    return _Step((text.alias(name),), (reason,) if declared and not declared.nullable else ())


def _value(source: Source, name: str, value: Value, zone: str, prefix: str = "") -> tuple[pl.Expr, pl.Expr | None]:
    """Returns the column of a field, a measure or a name, and the reason against a row (null for none)."""
    raw, where = _origin(source, value)
    declared = field_of(source, name)
    kind = "float" if prefix else declared.kind if declared else "string"
    found, expected = raw, f"a {kind}"
    if value.words:
        found, expected = _translated(value, raw), f"one of {', '.join(map(str, value.words))}"
    elif kind == "timestamp" and not isinstance(value, Always | Arrived):
        found, expected = _time(value, raw, zone)
    elif kind in ("float", "integer"):
        found, expected = _number(source, raw), f"a number ({', '.join(sorted(source.reads)) or 'as JSON has them'})"
    to = source.unit_of(name) if value.unit else None
    if isinstance(value, At) and value.unit_at is not None and to:
        found = _by_unit(value, found.cast(pl.Float64), to)
        expected = f"a number in a known unit ({value.unit_at})"
    elif value.unit and to:
        found = convert(found.cast(pl.Float64), value.unit, to)
    if kind == "integer":
        found = found.round().cast(pl.Int64, strict=False)
    if value.default == ARRIVED and kind == "timestamp":
        found = pl.when(raw.is_null()).then(pl.col(ARRIVAL)).otherwise(found)
    elif value.default is not None:
        found = pl.when(raw.is_null()).then(pl.lit(value.default)).otherwise(found)
    column = found.cast(POLARS[kind]).alias(prefix + name)
    if isinstance(value, Always):
        return column, None
    text = raw.cast(pl.String)
    misread = raw.is_not_null() & found.is_null()
    if "nan" in source.reads:
        misread &= ~_is_none(text)
    shown = pl.format("{}: {} is not " + expected.replace("{", "(").replace("}", ")"), pl.lit(where), text.str.head(60))
    if declared is None or declared.nullable or prefix:
        return column, pl.when(misread).then(shown)
    missing = found.is_null() & ~misread
    return column, pl.when(misread).then(shown).when(missing).then(pl.lit(f"{name}: nothing at {where}"))


def _is_of_interest(value: Value, raw: pl.Expr) -> pl.Expr:
    return raw.cast(pl.String).is_in([str(word) for word in value.words]) if value.words else raw.is_not_null()


def _origin(source: Source, value: Value) -> tuple[pl.Expr, str]:
    """Returns the raw value, and where it comes from in words."""
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


def _translated(value: Value, raw: pl.Expr) -> pl.Expr:
    words = {str(word): meaning for word, meaning in value.words.items()}
    text = raw.cast(pl.String)
    if value.keeps_words:
        return text.replace(words)
    return text.replace_strict(list(words), list(words.values()), default=None)


def _time(value: Value, raw: pl.Expr, city_zone: str) -> tuple[pl.Expr, str]:
    if value.form != "iso":
        unit = {"epoch_s": "seconds", "epoch_ms": "milliseconds", "epoch_us": "microseconds"}[value.form]
        return epoch_times(raw, value.form), f"a number of {unit} since 1970"
    zone = city_zone if value.zone == CITY_ZONE else value.zone
    return raw.map_batches(lambda text: read_times(text, zone), TIMESTAMP), ISO_8601


def _number(source: Source, raw: pl.Expr) -> pl.Expr:
    if not source.reads & {"text", "comma", "nan"}:
        return raw
    text = raw.cast(pl.String).str.strip_chars()
    if "comma" in source.reads:
        text = text.str.replace(r"^([+-]?\d+),(\d+)$", "$1.$2")
    return text.cast(pl.Float64, strict=False).fill_nan(None)


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


def _is_none(text: pl.Expr) -> pl.Expr:
    return text.str.strip_chars().str.to_lowercase().is_in(list(_NONE)).fill_null(value=False)


def to_json(contract: Contract, events: pl.DataFrame) -> list[bytes]:
    """Returns events as the messages of the contract's topic."""
    times = [pl.col(f.name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ") for f in contract.of_kind("timestamp")]
    named = events.with_columns(times)
    flat = [f.name for f in contract.fields if f.within is None]
    objects = [pl.struct(f.name for f in fields).alias(name) for name, fields in contract.objects.items()]
    return named.select(*flat, *objects).write_ndjson().encode().splitlines()
