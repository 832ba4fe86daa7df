"""Reads times in all forms of ISO 8601, and as seconds, milliseconds or microseconds since 1970. Vectorised."""

from datetime import UTC, datetime

import polars as pl

from city.contracts.model import MACHINE_ZONE
from city.contracts.schema import TIMESTAMP
from city.local_time import machine_zone
from city.sources.model import Form

PER_SECOND: dict[Form, int] = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000}

_DAY = r"(?<year>\d{4})-?(?<month>\d{2})-?(?<day>\d{2})"
_CLOCK = r"(?<hour>\d{2}):?(?<minute>\d{2})(?::?(?<second>\d{2})(?:[.,](?<fraction>\d+))?)?"
_ZONE = r"(?<zone>[Zz]|[+-]\d{2}(?::?\d{2})?)?(?:\[[A-Za-z_/+-]+\])?"
_ISO = rf"^{_DAY}[Tt ]{_CLOCK}{_ZONE}$"


ISO_8601 = "an ISO 8601 time such as 2026-11-27T10:00:00Z"

_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_COMMON = "%Y-%m-%dT%H:%M:%S%.f"


def read_times(text: pl.Series, zone: str) -> pl.Series:
    """Parses ISO 8601 times to UTC microseconds, as `iso_times` does. The two most common forms are parsed at once.

    `zone` may be MACHINE_ZONE.
    """
    zone = machine_zone() if zone == MACHINE_ZONE else zone
    known = text.str.to_datetime(_COMMON + "%#z", time_unit="us", strict=False).dt.convert_time_zone("UTC")
    for common in (True, False):
        if known.null_count() == text.null_count():
            break
        rest = known.is_null()
        others = pl.DataFrame({"text": text.filter(rest)})
        found = _common_naive_times(pl.col("text"), zone) if common else iso_times(pl.col("text"), zone)
        known = known.scatter(rest.arg_true(), others.select(found).to_series())
    return known.to_frame("t").select(_in_range(pl.col("t"))).to_series().alias(text.name)


def _in_range(time: pl.Expr) -> pl.Expr:
    """Returns null for times that are not of the years 1 to 9999, which no other part of the platform can write."""
    return pl.when(time.is_between(pl.lit(_FIRST, TIMESTAMP), pl.lit(_LAST, TIMESTAMP))).then(time)


def _common_naive_times(text: pl.Expr, zone: str) -> pl.Expr:
    naive = text.str.to_datetime(_COMMON, time_unit="us", strict=False)
    return naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def iso_times(text: pl.Expr, zone: str) -> pl.Expr:
    """Parses ISO 8601 times to UTC microseconds; null where a text is none.

    Reads the extended and the basic form, minutes without seconds, a point or a comma before the fraction, lower case,
    hours as offset, and the name of a zone in brackets behind an offset (RFC 9557). A time without an offset is in
    `zone`; where a clock was set back, it is the earlier of the two. A second of 60 is the next second. What is finer
    than microseconds is cut off.
    """
    part = text.str.extract_groups(_ISO).struct
    second = part["second"].fill_null("00")
    clock = pl.concat_str(
        part["year"], pl.lit("-"), part["month"], pl.lit("-"), part["day"], pl.lit("T"), part["hour"], pl.lit(":"),
        part["minute"], pl.lit(":"), pl.when(second == "60").then(pl.lit("59")).otherwise(second),
    )  # fmt: skip
    micros = part["fraction"].fill_null("").str.slice(0, 6).str.pad_end(6, "0").cast(pl.Int64, strict=False)
    leap = pl.when(second == "60").then(pl.lit(1_000_000)).otherwise(micros)
    naive = clock.str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False) + pl.duration(microseconds=leap)
    offset = part["zone"].str.replace("[Zz]", "+00")
    minutes = (
        offset.str.slice(1, 2).cast(pl.Int64, strict=False) * 60
        + offset.str.replace(":", "").str.slice(3, 2).str.pad_start(2, "0").cast(pl.Int64, strict=False)
    ) * pl.when(offset.str.starts_with("-")).then(-1).otherwise(1)
    known = (naive - pl.duration(minutes=minutes)).dt.replace_time_zone("UTC")
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
    return pl.when(offset.is_null()).then(local).otherwise(known)


def received(value: object) -> str:
    """Describes a value that is no ISO 8601 time: itself, and what it may be where it is a number or a text of one."""
    digits = str(value).strip().partition(".")[0]
    units = {10: "seconds", 13: "milliseconds", 16: "microseconds", 19: "nanoseconds"}
    may_be = f" ({units[len(digits)]} since 1970?)" if digits.isdecimal() and len(digits) in units else ""
    return f"{value[:60]!r}{may_be}" if isinstance(value, str) else f"{value}{may_be}"


def epoch_times(number: pl.Expr, form: Form) -> pl.Expr:
    """Converts numbers since 1970 (a Float64 or text column) to UTC microseconds; null where it is none."""
    micros = number.cast(pl.Float64, strict=False) * (1_000_000 // PER_SECOND[form])
    return _in_range(micros.round().cast(pl.Int64, strict=False).cast(TIMESTAMP))
