"""Times in the forms that are sent, and units."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.sources.model import Form
from city.sources.plan import convert
from city.sources.times import epoch_times, read_times
from city.sources.units import UNITS, UnitError, conversion

AT = datetime(2026, 11, 25, 23, 9, tzinfo=UTC)
NEW_YORK = "America/New_York"


def read(text: str, zone: str = "UTC") -> datetime | None:
    time: datetime | None = read_times(pl.Series([text]), zone).item()
    return time


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-25T23:09Z",
        "2026-11-25t23:09:00z",
        "20261125T230900Z",
        "20261125T2309Z",
        "2026-11-25T23:09:00+00",
        "2026-11-25T23:09:00Z[UTC]",
        "2026-11-25 23:09:00.000000000Z",
        "2026-11-25T18:09:00-05:00[America/New_York]",
        "2026-11-26T04:39:00+0530",
        "2026-11-25T23:08:60Z",
        "2026-11-25T18:09:00-05:00[Etc/GMT+5]",
        "2026-11-25T23:09:00[UTC]",
        "2026-11-25T23:09:00[Z]",
        "2026-W48-3T23:09Z",
        "2026W483T230900Z",
        "2026-329T23:09:00Z",
        "2026329T2309Z",
        "2026-11-26T22:08:00+22:59",
    ],
)
def test_all_forms_of_a_time_are_the_same_moment(text: str) -> None:
    assert read(text) == AT


@pytest.mark.parametrize(
    "text",
    [
        "1795648140",
        "yesterday",
        "2026-13-01T00:00Z",
        "2026-11-25",
        "",
        "2026-11-25T25:00Z",
        "2026-07-01T10:00:00[Europe/Paris]",
        "2026-07-01T10:00:00+99:99",
        "2026-07-01T10:00:00+99:00",
        "2026-07-01T10:00:00-24:00",
        "2026-07-01T10:00:00+2400",
        "2026-07-01T10:00:00+23:60",
        "20260701T100000+99",
        "2026-07-01T24:00:01Z",
        "2026-07-01T24:01Z",
        "2026-07-01T24:00:00.5Z",
        "2026-W54-1T00:00Z",
        "2026-W48-8T00:00Z",
        "2026-366T00:00Z",
        "2026-07-01T10:00:00Z[Europe Paris]",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert read(text) is None


def test_the_end_of_a_day_is_the_begin_of_the_next() -> None:
    for text in ("2026-11-24T24:00Z", "20261124T240000Z", "2026-W48-2T24:00:00.000Z", "2026-11-24T19:00-05"):
        assert read(text) == datetime(2026, 11, 25, tzinfo=UTC)
    assert read("2026-11-24T24:00", NEW_YORK) == datetime(2026, 11, 25, 5, tzinfo=UTC)


def test_a_fraction_may_have_a_comma_and_is_cut_off_at_microseconds() -> None:
    for text in ("2026-11-25T23:09:00,123456789Z", "2026-11-25T23:09:00.123456789Z", "2026-11-25T18:09:00.123456-05"):
        assert read(text) == AT.replace(microsecond=123_456)


def test_a_time_without_a_zone_is_in_the_declared_one() -> None:
    assert read("2026-11-25T18:09", NEW_YORK) == AT
    assert read("2026-11-25T18:09:00", NEW_YORK) == AT
    assert read("2026-11-25T23:09:00") == AT
    assert read("2026-11-01T01:30:00", NEW_YORK) == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)  # the earlier of the two
    assert read("2026-03-08T02:30:00", NEW_YORK) is None  # the clock was set forward over it


@settings(deadline=None)  # a machine with other work takes its time
@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)), st.sampled_from(["UTC", NEW_YORK, "Asia/Kolkata"]))
def test_every_moment_is_read_back(moment: datetime, zone: str) -> None:
    known = moment.replace(tzinfo=UTC)
    local = known.astimezone(ZoneInfo(zone))
    assert read(local.isoformat()) == known
    if local.fold == 0 and local.replace(tzinfo=None, fold=1).astimezone(UTC) == known:
        assert read(local.replace(tzinfo=None).isoformat(), zone) == known


@pytest.mark.parametrize(
    ("form", "number"),
    [("epoch_s", 1_795_648_140), ("epoch_ms", 1_795_648_140_000), ("epoch_us", 1_795_648_140_000_000)],
)
def test_a_time_may_be_a_number_or_a_text_since_1970(form: Form, number: int) -> None:
    for values in ([float(number)], [str(number)]):
        assert pl.DataFrame({"n": values}).select(epoch_times(pl.col("n"), form)).item() == AT


@pytest.mark.parametrize(
    ("number", "unit", "to", "expected"),
    [
        (68, "°F", "°C", 20),
        (0, "K", "°C", -273.15),
        (20, "°C", "°F", 68),
        (29.92, "inHg", "hPa", 1013.2075888),
        (60, "mph", "m/s", 26.8224),
        (1, "in/h", "mm/h", 25.4),
        (100, "psi", "bar", 6.89475729317),
    ],
)
def test_a_number_is_converted(number: float, unit: str, to: str, expected: float) -> None:
    converted = pl.DataFrame({"n": [float(number)]}).select(convert(pl.col("n"), unit, to)).item()
    assert converted == pytest.approx(expected, abs=1e-9)


def test_a_conversion_there_and_back_changes_nothing() -> None:
    for unit, known in UNITS.items():
        for other, wanted in UNITS.items():
            if known.dimension == wanted.dimension:
                (a, b), (c, d) = conversion(unit, other), conversion(other, unit)
                assert (a * c, b * c + d) == pytest.approx((1, 0), abs=1e-9)


def test_units_that_cannot_be_converted_are_refused() -> None:
    with pytest.raises(UnitError, match="unknown unit 'furlong'; known: °C"):
        conversion("furlong", "m")
    with pytest.raises(UnitError, match="'bar' measures pressure, and 'm' measures length; units of it: m, mm"):
        conversion("bar", "m")
