"""The day in words and figures, of every domain, from the tables that they are read from."""

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from deltalake import write_deltalake

from city.live.facts import Fact, count_text, facts
from city.models.predictions import PREDICTION
from city.settings import Settings
from city.tables.model import DAY
from city.tables.registry import table_of
from city.tables.schema import schema
from city_assets.environment import today as environment
from city_assets.environment.tables import CONDITIONS_DAILY
from city_assets.equipment import today as equipment
from city_assets.equipment.tables import MACHINE_FAULTS
from city_assets.payments import today as payments
from city_assets.payments.models import FRAUD, FRAUDS, GENUINE
from city_assets.traffic import history
from city_assets.traffic import today as traffic
from city_assets.traffic.tables import CELLS_HOURLY
from city_assets.traffic.transforms import level

DAY_ONE = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
CELL = "882a100d2dfffff"


@pytest.fixture
def config(config: Settings) -> Settings:
    return config.model_copy(update={"timezone": "UTC"})


def write(config: Settings, table: str, rows: list[dict[str, Any]]) -> None:
    """Rows of some columns; the others are null."""
    columns = schema(table_of(table))
    path = config.lake / table
    path.mkdir(parents=True)
    write_deltalake(path, pl.DataFrame(rows, schema={name: columns[name] for name in columns}))


def hour(moment: datetime, speed: float | None, positions: int) -> dict[str, Any]:
    beside = {"day": moment.date(), "hour": moment, "local_hour": moment.hour, "cell": CELL, "congestion": level(speed)}
    return beside | {"positions": positions, "vehicles": 3, "speed_mean": speed}


def test_traffic_is_told_beside_a_week_ago(config: Settings) -> None:
    assert "There is no data" in traffic.today(config, DAY_ONE)[0].sentence
    rows = [hour(NOON, 20.0, 100), hour(NOON + timedelta(hours=1), 10.0, 300), hour(NOON - WEEK, 25.0, 200)]
    write(config, CELLS_HOURLY.id, rows)
    speed, positions = traffic.today(config, DAY_ONE)
    assert (speed.value, speed.before) == (12.5, 25.0)
    assert speed.sentence == (
        "Traffic moved at 12.5 km/h, 50% slower than a week ago; it was slowest from 13:00, with 10.0 km/h. "
        "1 cell was congested for an hour or more."
    )
    assert (positions.value, positions.before) == (400, 200)
    assert "No cell was congested" in traffic.today(config, DAY_ONE - WEEK)[0].sentence
    hours = history.hourly(config, NOON, NOON + timedelta(hours=2), None)
    assert [row[3] for row in hours["rows"]] == [20.0, 10.0]
    assert history.hourly(config, NOON, NOON + timedelta(hours=2), "882a100d2bfffff")["rows"] == []


def test_vehicles_that_report_no_speed_are_counted_and_have_no_weight(config: Settings) -> None:
    rows = [hour(NOON, 20.0, 100), hour(NOON + timedelta(hours=1), None, 300), hour(NOON - WEEK, None, 200)]
    write(config, CELLS_HOURLY.id, rows)
    speed, positions = traffic.today(config, DAY_ONE)
    assert (speed.value, speed.before, positions.value) == (20.0, None, 400)
    assert speed.sentence.startswith("Traffic moved at 20.0 km/h. No cell was congested")
    speed, positions = traffic.today(config, DAY_ONE - WEEK)
    assert (speed.sentence.partition(".")[0], speed.value) == ("No vehicle reported its speed", None)
    assert positions.value == 200


def test_the_air_has_the_epas_word(config: Settings) -> None:
    assert "There is no data" in environment.today(config, DAY_ONE)[0].sentence
    row = {
        "day": DAY_ONE,
        "noise_mean": 60.04,
        "temperature_mean": 9.0,
        "temperature_min": 4.4,
        "temperature_max": 12.0,
    }
    rows = [
        row | {"location": "downtown", "air_quality_mean": 80.0},
        row | {"location": "east_side", "air_quality_mean": 40.0},
        row | {"day": DAY_ONE - WEEK, "location": "downtown", "air_quality_mean": 30.0},
    ]
    write(config, CONDITIONS_DAILY.id, rows)
    air, noise = environment.today(config, DAY_ONE)
    assert (air.value, air.before, air.unit) == (60.0, 30.0, "AQI")
    assert air.sentence == ("The air was moderate; the worst index of a district was 80 (downtown). It was 4 to 12 °C.")
    assert (noise.value, noise.before) == (60.0, 60.0)
    words = [environment.category(index) for index in (50, 51, 150, 151, 500)]
    assert words == ["good", "moderate", "unhealthy for sensitive groups", "unhealthy", "very unhealthy"]


def test_payments_are_counted_with_what_was_wrong(config: Settings) -> None:
    assert "There is no data" in payments.today(config, DAY_ONE)[0].sentence
    days = [DAY_ONE] * 3 + [DAY_ONE - WEEK]
    write(config, "silver/payments", [{"day": day, "amount": 500.25} for day in days])
    assert payments.today(config, DAY_ONE)[0].sentence == (
        "3 payments of 1,501 dollars in all were made; no payment was charged back."
    )
    reports = [{"timestamp": moment} for moment in (NOON, NOON + timedelta(hours=1), NOON - WEEK)]
    write(config, "silver/chargebacks", reports)
    scores = pl.DataFrame({PREDICTION: [FRAUD, GENUINE], DAY: [DAY_ONE] * 2})
    (config.lake / "scores" / FRAUDS.name).mkdir(parents=True)
    write_deltalake(config.lake / "scores" / FRAUDS.name, scores)
    made, paid = payments.today(config, DAY_ONE)
    assert made.sentence.endswith("2 payments were charged back, and the model flagged 1 payment as a fraud.")
    assert (made.value, made.before, paid.value, paid.before) == (3, 1, 1501, 500)


def test_machines_with_faults_are_told_by_cause(config: Settings) -> None:
    assert equipment.today(config, DAY_ONE)[0] == Fact(
        "equipment", "No machine had a fault.", "Machines with a fault", value=0
    )
    faults = [("m1", "leak", NOON), ("m1", "wear", NOON), ("m2", "leak", NOON), ("m3", None, NOON - WEEK)]
    write(
        config,
        MACHINE_FAULTS.id,
        [{"machine_id": machine, "cause": cause, "begin": begin, "end": begin} for machine, cause, begin in faults],
    )
    (fact,) = equipment.today(config, DAY_ONE)
    assert fact.sentence == "2 machines had a fault: 2 × leak, 1 × wear."
    assert (fact.value, fact.before) == (2, 1)


def test_every_active_domain_is_asked(config: Settings) -> None:
    names = {fact.name for fact in facts(config)}
    assert names == {"environment", "equipment", "payments", "traffic"}
    one = config.model_copy(update={"domains": ["traffic"]})
    assert [asdict(fact)["name"] for fact in facts(one)] == ["traffic"]


def test_counts_are_words() -> None:
    assert [count_text(count, "cell") for count in (0, 1, 1200)] == ["no cell", "1 cell", "1,200 cells"]
