"""The remaining life of machines of any size: limits by type, shares of a life, and messages in hours."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from city.contracts.schema import TIMESTAMP
from city.lake.engines.polars import PolarsEngine
from city.models.examples import check_known, label_rows
from city.models.labels import LABEL
from city.models.model import ModelError
from city.tables.schema import schema
from city_assets.equipment.alarms import _life_level
from city_assets.equipment.contract import SIGNALS
from city_assets.equipment.limits import ACTIONS, DEFAULT_LIMITS, LIMIT_COLUMNS, LifeLimits, default_type, limits_of
from city_assets.equipment.models import LIFE
from city_assets.equipment.tables import MACHINE_FEATURES, MACHINE_SENSORS, MACHINE_TYPES, MACHINES
from simulators.world.machines import Machine, machine_types

START = datetime(2026, 5, 4, tzinfo=UTC)
THOUSAND = {
    "kind": "pump",
    "life_unit": "h",
    "life_cap": 1000.0,
    "order_below": 700.0,
    "replace_below": 300.0,
    "stop_below": 100.0,
}


def features(types: list[dict[str, Any]], times: int = 1, machine: Machine | None = None) -> pl.DataFrame:
    """The features of half an hour of a pump, of which each second lasts so many."""
    pump = machine or Machine(3, 1)
    seconds = START.timestamp() + pl.int_range(0, 1800, 5, eager=True).cast(pl.Float64)
    signals, runs, _, _ = pump.readings(seconds.to_numpy())
    moments = [START + timedelta(seconds=times * (second - START.timestamp())) for second in seconds]
    readings = pl.DataFrame({"machine_id": pump.id, "timestamp": moments, **signals}, schema_overrides=_TIME)
    engine = PolarsEngine()
    frames = {
        "readings": readings.filter(pl.Series(runs)).with_columns(day=pl.lit(START.date())),
        "ranges": pl.DataFrame(list(pump.ranges()), schema_overrides=_columns(MACHINE_SENSORS)),
        "machines": pl.DataFrame([pump.description()], schema_overrides=_columns(MACHINES)),
        "types": pl.DataFrame(types, schema=schema(MACHINE_TYPES)),
    }
    assert MACHINE_FEATURES.transform is not None
    rows = MACHINE_FEATURES.transform(**{name: engine.local(frame) for name, frame in frames.items()})
    return engine.collect(rows).sort("timestamp").select(*schema(MACHINE_FEATURES))


_TIME = {"timestamp": TIMESTAMP}


def _columns(table: Any) -> dict[str, pl.DataType]:
    return {name: kind for name, kind in schema(table).items() if kind == pl.String()}


def failures(*moments: datetime) -> pl.DataFrame:
    rows = [("pump_001", moment, "failure") for moment in moments]
    return pl.DataFrame(rows, {"machine_id": pl.String, "timestamp": TIMESTAMP, "kind": pl.String}, orient="row")


def minutes(count: int, every: timedelta, cap_hours: float | None) -> pl.DataFrame:
    rows = {
        "machine_id": "pump_001",
        "timestamp": [START + n * every for n in range(count)],
        "first_of_minute": True,
        "power_now": 0.5,
        "life_cap_hours": cap_hours,
    }
    return pl.DataFrame(rows, schema_overrides={"timestamp": TIMESTAMP, "life_cap_hours": pl.Float64})


def answered(shares: list[float], lows: list[float | None], limits: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "timestamp": START,
            "machine_id": "pump_001",
            "output": [[share] for share in shares],
            "low": lows,
            "high": [share + 0.1 for share in shares],
            "contributions": [dict.fromkeys(LIFE.inputs, 0.25), *[None] * (len(shares) - 1)],
            **limits,
        }
    )


def messages(rows: pl.DataFrame) -> pl.DataFrame:
    assert LIFE.stream is not None
    return LIFE.stream.message(rows)


def test_a_pump_of_two_thousand_hours_has_the_inputs_of_one_with_two() -> None:
    small, large = features(machine_types()), features([default_type(), THOUSAND], times=1000)
    assert_frame_equal(small.select(LIFE.inputs), large.select(LIFE.inputs))
    assert small["life_cap_hours"].unique().to_list() == [1.0]
    assert large["life_cap_hours"].unique().to_list() == [1000.0]
    assert large["stop_below_hours"].unique().to_list() == [100.0]


def test_a_pump_of_two_thousand_hours_has_the_labels_of_one_with_two() -> None:
    minute, end = timedelta(minutes=1), timedelta(minutes=200)
    small = label_rows(LIFE, minutes(400, minute, None), failures(START + end))
    large = label_rows(LIFE, minutes(400, 1000 * minute, 1000.0), failures(START + 1000 * end))
    assert small.height == 340
    assert small[LABEL].min() == pytest.approx(1 / 60)
    assert small[LABEL].to_list() == pytest.approx(large[LABEL].to_list())


def test_each_row_is_known_after_its_own_cap() -> None:
    mixed = pl.concat([minutes(400, timedelta(minutes=1), cap) for cap in (None, 2.0)])
    known = label_rows(LIFE, mixed, failures())
    assert known.group_by("life_cap_hours").len().sort("len").rows() == [(2.0, 280), (None, 340)]


def test_the_message_of_a_pump_of_two_thousand_hours_has_a_thousand_times_the_hours() -> None:
    shares, lows = [0.9, 0.5, 0.35, 0.08, -0.02, 0.5], [0.8, 0.4, 0.2, 0.01, -0.1, None]
    limits = [features(types).row(0, named=True) for types in (machine_types(), [THOUSAND])]
    small, large = (messages(answered(shares, lows, {name: row[name] for name in LIMIT_COLUMNS})) for row in limits)
    assert small["predicted_rul_hours"].to_list() == [0.9, 0.5, 0.35, 0.08, 0.0, 0.5]
    assert (small["predicted_rul_hours"] * 1000).to_list() == pytest.approx(large["predicted_rul_hours"].to_list())
    for ours, theirs in zip(small["confidence_interval"], large["confidence_interval"], strict=True):
        assert (ours * 1000).to_list() == pytest.approx(theirs.to_list())
    assert small["confidence_interval"].to_list()[4] == pytest.approx([0.0, 0.08])
    assert small["priority"].to_list() == ["low", "medium", "high", "critical", "critical", "medium"]
    assert_frame_equal(small.select("recommended_action", "priority"), large.select("recommended_action", "priority"))
    assert small["recommended_action"][3] == ACTIONS[0][1]
    per_signal = len(LIFE.inputs) / len(SIGNALS) * 0.25
    assert small["feature_contributions"][0] == dict.fromkeys(SIGNALS, per_signal)
    assert large["feature_contributions"][0] == dict.fromkeys(SIGNALS, 1000 * per_signal)
    assert small["feature_contributions"][1] is None


def test_a_life_in_cycles_or_days_is_told_in_its_unit_and_in_hours() -> None:
    cycles = THOUSAND | {"life_unit": "cycles", "life_cap": 125.0, "stop_below": 20.0, "hours_per_cycle": 4.0}
    row = features([cycles]).row(0, named=True)
    assert (row["life_cap_hours"], row["stop_below_hours"]) == (500.0, 80.0)
    message = messages(answered([0.5], [0.4], {name: row[name] for name in LIMIT_COLUMNS})).row(0, named=True)
    assert (message["predicted_rul_hours"], message["remaining_life"]) == (250.0, 62.5)
    assert message["remaining_life_interval"] == pytest.approx([50, 75])
    assert message["life_unit"] == "cycles"
    days = features([THOUSAND | {"life_unit": "d", "life_cap": 10.0}]).row(0, named=True)
    assert (days["life_cap_hours"], days["life_unit_hours"]) == (240.0, 24.0)


def test_a_cap_that_is_too_long_for_the_history_is_a_warning() -> None:
    """Nine caps of 240 hours are the 90 days that are kept."""

    def warnings(cap: float) -> list[str | None]:
        row = features([THOUSAND | {"life_cap": cap}]).row(0, named=True)
        return messages(answered([0.5], [0.4], {name: row[name] for name in LIMIT_COLUMNS}))["warning"].to_list()

    assert warnings(240.0) == [None]
    assert warnings(2000.0) == [
        "not learned from: a life_cap of 2000 h needs 750 days of history, and 90 days are kept"
    ]


@pytest.mark.parametrize(
    ("types", "cap"),
    [
        ([], DEFAULT_LIMITS.cap),
        ([default_type() | {"life_cap": 7.0}], 7.0),
        ([default_type() | {"life_cap": 7.0}, THOUSAND], 1000.0),
        ([default_type() | {"life_cap": 7.0}, THOUSAND | {"life_unit": "cycles"}], 7.0),  # without hours of a cycle
        ([default_type() | {"life_cap": 7.0}, THOUSAND | {"life_cap": 0.0}], 7.0),
        ([THOUSAND | {"kind": "press"}], DEFAULT_LIMITS.cap),
    ],
)
def test_a_kind_without_a_row_has_the_default(types: list[dict[str, Any]], cap: float) -> None:
    assert features(types)["life_cap_hours"].unique().to_list() == [cap]


def test_a_row_of_an_earlier_release_has_the_default_limits() -> None:
    assert limits_of(dict.fromkeys(LIMIT_COLUMNS)) == DEFAULT_LIMITS
    row = features([THOUSAND]).row(0, named=True)
    assert limits_of(row) == replace(
        DEFAULT_LIMITS, cap=1000.0, order_below=700.0, replace_below=300.0, stop_below=100.0
    )
    rows = answered([0.5], [0.4], {}).with_columns(
        pl.lit(None, pl.String if name == "life_unit" else pl.Float64).alias(name) for name in LIMIT_COLUMNS
    )
    assert messages(rows)["predicted_rul_hours"].to_list() == [0.5]


def test_a_cap_that_is_longer_than_the_rows_is_named() -> None:
    rows = minutes(400, timedelta(minutes=1), 500.0)
    labelled = label_rows(LIFE, rows, failures())
    with pytest.raises(ModelError, match=r"known up to 20 days, 20:00:00 after .* cover 187 days, 12:00:00"):
        check_known(LIFE, rows, labelled)


@pytest.mark.parametrize(("share", "hours"), [(-0.2, 0.0), (0.25, 500.0), (1.3, 2_000.0)])
def test_the_forecast_and_the_message_stay_within_the_cap(share: float, hours: float) -> None:
    limits = LifeLimits(cap=2_000, order_below=200, replace_below=100, stop_below=0)
    assert limits.hours_of(share) == hours
    assert _life_level({"stop_below_hours": 0.0, "confidence_interval": [0.0, 1.0]}, None) == 0, "it is never stopped"
