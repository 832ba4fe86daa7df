"""Reads times: in ISO 8601 (see `iso_times`), and as seconds, milliseconds or microseconds since 1970. Vectorised."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import polars as pl

from city.contracts.model import MACHINE_ZONE
from city.contracts.schema import TIMESTAMP
from city.local_time import machine_zone
from city.sources.model import EPOCHS, Form

_DAY = r"(?<calendar>\d{4}-?\d{2}-?\d{2})|(?<ordinal>\d{4}-?\d{3})|(?<week>\d{4}-?[Ww]\d{2}-?\d)"
_CLOCK = r"(?<hour>\d{2}):?(?<minute>\d{2})(?::?(?<second>\d{2})(?:[.,](?<fraction>\d+))?)?"
_OFFSET = r"[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?"
_ZONE = rf"(?:(?<zone>[Zz]|{_OFFSET})(?:\[[A-Za-z0-9_/+-]+\])?|(?<utc>\[(?:UTC|Z)\]))?"
_ISO = rf"^(?:{_DAY})[Tt ]{_CLOCK}{_ZONE}$"
_PARTS = re.compile(_ISO.replace("(?<", "(?P<")).groupindex
_FALSE_OFFSET = r"[+-](?:(?:2[4-9]|[3-9]\d)(?::?\d{2})?|\d{2}:?[6-9]\d)$"
"""An offset that is no time of a day, which Polars accepts."""

ISO_8601 = "an ISO 8601 time such as 2026-11-27T10:00:00Z"

_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_COMMON = "%Y-%m-%dT%H:%M:%S%.f"


def read_times(text: pl.Series, zone: str) -> pl.Series:
    """Parses ISO 8601 times to UTC microseconds, as `iso_times` does. The two most common forms are parsed at once.

    `zone` may be MACHINE_ZONE.
    """
    zone = machine_zone() if zone == MACHINE_ZONE else zone
    parsed = text.str.to_datetime(_COMMON + "%#z", time_unit="us", strict=False).dt.convert_time_zone("UTC")
    known = parsed.zip_with(
        ~text.str.contains(_FALSE_OFFSET).fill_null(value=False), pl.Series([None], dtype=TIMESTAMP)
    )
    for common in (True, False):
        if known.null_count() == text.null_count():
            break
        rest = known.is_null()
        others = pl.DataFrame({"text": text.filter(rest)})
        parse = _common_naive_times if common else iso_times
        known = known.scatter(rest.arg_true(), others.select(parse(pl.col("text"), zone)).to_series())
    return known.to_frame("t").select(_in_range(pl.col("t"))).to_series().alias(text.name)


def _in_range(time: pl.Expr) -> pl.Expr:
    """Returns null for times that are not of the years 1 to 9999, which no other part of the platform can write."""
    return pl.when(time.is_between(pl.lit(_FIRST, TIMESTAMP), pl.lit(_LAST, TIMESTAMP))).then(time)


def _common_naive_times(text: pl.Expr, zone: str) -> pl.Expr:
    naive = text.str.to_datetime(_COMMON, time_unit="us", strict=False)
    return naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def iso_times(text: pl.Expr, zone: str) -> pl.Expr:
    """Parses ISO 8601 times to UTC microseconds; null where a text is none.

    Reads calendar, week and ordinal dates, each with the extended and the basic form of date, clock and offset; minutes
    without seconds; a point or a comma before the fraction; a space for the T; lower case; 24:00 as the end of a day;
    offsets of hours or of hours and minutes; and the name of a zone in brackets behind an offset (RFC 9557), which is
    not applied. Without an offset, only [UTC] and [Z] are read. A time without an offset is in `zone`; where a clock
    was set back, it is the earlier of the two. A second of 60 is the next second. What is finer than microseconds is
    cut off. Dates without a time, hours without minutes, and years of more than four digits are not read.
    """
    parts = text.str.extract_groups(_ISO).struct
    part = {name: parts[name] for name in _PARTS}
    hour, second = part["hour"], part["second"].fill_null("00")
    micros = part["fraction"].fill_null("").str.slice(0, 6).str.pad_end(6, "0").cast(pl.Int64, strict=False)
    ends = hour == "24"
    is_clock = ~ends | (
        (part["minute"] == "00") & (second == "00") & (part["fraction"].str.strip_chars("0").fill_null("") == "")
    )
    clock = pl.concat_str(
        pl.when(ends).then(pl.lit("00")).otherwise(hour), part["minute"],
        pl.when(second == "60").then(pl.lit("59")).otherwise(second),
    ).str.to_time("%H%M%S", strict=False)  # fmt: skip
    leap = pl.when(second == "60").then(pl.lit(1_000_000)).otherwise(micros)
    more = pl.duration(days=ends.cast(pl.Int64), microseconds=leap)
    naive = pl.when(is_clock).then(_date(part).dt.combine(clock, "us") + more)
    offset = pl.coalesce(part["zone"], pl.when(part["utc"].is_not_null()).then(pl.lit("Z"))).str.replace("[Zz]", "+00")
    minutes = (
        offset.str.slice(1, 2).cast(pl.Int64, strict=False) * 60
        + offset.str.replace(":", "").str.slice(3, 2).str.pad_start(2, "0").cast(pl.Int64, strict=False)
    ) * pl.when(offset.str.starts_with("-")).then(-1).otherwise(1)
    known = (naive - pl.duration(minutes=minutes)).dt.replace_time_zone("UTC")
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
    return pl.when(offset.is_null()).then(local).otherwise(known)


def _date(part: Mapping[str, pl.Expr]) -> pl.Expr:
    """Parses the date of the parts of an ISO 8601 time."""
    return pl.coalesce(
        part[name].str.replace_all("-", "").str.to_uppercase().str.to_date(form, strict=False)
        for name, form in (("calendar", "%Y%m%d"), ("ordinal", "%Y%j"), ("week", "%GW%V%u"))
    )


def received(value: object) -> str:
    """Describes a value that is no ISO 8601 time: itself, and what it may be where it is a number or a text of one."""
    digits = str(value).strip().partition(".")[0]
    units = {10: "seconds", 13: "milliseconds", 16: "microseconds", 19: "nanoseconds"}
    may_be = f" ({units[len(digits)]} since 1970?)" if digits.isdecimal() and len(digits) in units else ""
    return f"{value[:60]!r}{may_be}" if isinstance(value, str) else f"{value}{may_be}"


def epoch_times(number: pl.Expr, form: Form) -> pl.Expr:
    """Converts numbers since 1970 (a Float64 or text column) to UTC microseconds; null where it is none."""
    micros = number.cast(pl.Float64, strict=False) * (1_000_000 // EPOCHS[form][0])
    return _in_range(micros.round().cast(pl.Int64, strict=False).cast(TIMESTAMP))
