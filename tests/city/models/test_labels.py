"""What came: an event after some time, a report, or nothing at all; never known before its time."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.contracts.schema import TIMESTAMP
from city.models.examples import label_rows, split
from city.models.labels import KNOWN, LABEL, delay_of
from city.models.model import ModelError
from city.settings import Settings
from city_assets.equipment.models import ANOMALIES, LIFE
from city_assets.payments.models import FRAUDS, REPORTED_WITHIN

START = datetime(2026, 5, 4, 12, tzinfo=UTC)
CAP = LIFE.label.wait


def minutes(*of: float) -> list[datetime]:
    return [START + timedelta(minutes=n) for n in of]


def machine(count: int, name: str = "pump_001") -> pl.DataFrame:
    """A reading a minute."""
    return pl.DataFrame(
        {
            "machine_id": name,
            "timestamp": minutes(*range(count)),
            "first_of_minute": True,
            "power_now": 0.5,
            "life_cap_hours": None,
        },
        schema_overrides={"timestamp": TIMESTAMP, "life_cap_hours": pl.Float64},
    )


def log(*failures: float, name: str = "pump_001") -> pl.DataFrame:
    columns = {"machine_id": pl.String, "timestamp": TIMESTAMP, "kind": pl.String}
    return pl.DataFrame([(name, at, "failure") for at in minutes(*failures)], columns, orient="row")


def test_the_life_left_is_the_time_to_the_next_failure_and_never_over_the_cap() -> None:
    labelled = label_rows(LIFE, machine(240), log(30, 200))
    left = dict(labelled.select("timestamp", LABEL).iter_rows())
    assert left[START] == pytest.approx(0.5)
    assert left[START + timedelta(minutes=29)] == pytest.approx(1 / 60)
    assert left[START + timedelta(minutes=31)] == pytest.approx(1)
    assert left[START + timedelta(minutes=150)] == pytest.approx(50 / 60)
    assert labelled["timestamp"].max() == START + timedelta(minutes=239) - CAP


def test_another_machines_failure_is_not_its_own() -> None:
    labelled = label_rows(LIFE, machine(100), log(30, name="pump_002"))
    assert labelled[LABEL].unique().to_list() == [1.0]


@settings(max_examples=30, deadline=None)
@given(failures=st.lists(st.integers(0, 400), max_size=8), count=st.integers(200, 400))
def test_a_row_counts_whether_it_fails_soon_or_not(failures: list[int], count: int) -> None:
    """Rows near the end count by their time alone: by their end, only the short-lived would."""
    labelled = label_rows(LIFE, machine(count), log(*sorted(failures)))
    assert labelled.height == count - CAP // timedelta(minutes=1)
    assert labelled[LABEL].is_between(0, 1).all()


def payments(count: int) -> pl.DataFrame:
    rows = {"card": "card_00001", "timestamp": minutes(*range(count)), "payment_id": [f"p{n}" for n in range(count)]}
    return pl.DataFrame(rows, schema_overrides={"timestamp": TIMESTAMP})


def test_a_payment_is_genuine_when_nobody_reported_it_in_time() -> None:
    within = REPORTED_WITHIN // timedelta(minutes=1)
    reports = pl.DataFrame({"payment_id": ["p3", "p3", "p5"], "timestamp": minutes(9, 4, 5 + within + 1)})
    labelled = label_rows(FRAUDS, payments(60), reports)
    assert labelled.filter(pl.col(LABEL) == "fraud")["payment_id"].to_list() == ["p3"]
    assert labelled.height == 60 - within  # of later ones it is not known yet


def test_a_report_that_is_newer_than_the_rows_shows_that_their_time_has_passed() -> None:
    within = REPORTED_WITHIN // timedelta(minutes=1)
    reports = pl.DataFrame({"payment_id": ["p3", "p50"], "timestamp": minutes(9, 50 + within)})
    labelled = label_rows(FRAUDS, payments(60), reports)
    assert labelled.filter(pl.col(LABEL) == "fraud")["payment_id"].to_list() == ["p3", "p50"]
    assert labelled["payment_id"].to_list() == [f"p{n}" for n in range(51)]
    assert label_rows(FRAUDS, payments(60), reports.clear()).height == 60 - within


def test_what_was_wrong_is_not_normal() -> None:
    wrong = pl.DataFrame(
        {
            "machine_id": ["pump_001", "pump_001", "pump_001", "pump_002"],
            "begin": minutes(10, 12, 50, 0),
            "end": minutes(30, 15, 55, 100),
        }
    )
    labelled = label_rows(ANOMALIES, machine(60), wrong)
    left = {(moment - START) // timedelta(minutes=1) for moment in labelled["timestamp"]}
    assert left == set(range(60)) - set(range(10, 31)) - set(range(50, 56))


def test_nothing_is_learned_from_what_became_known_later() -> None:
    model = LIFE
    rows = machine(1_000)
    parts = split(model, label_rows(model, rows, log(*range(50, 1_000, 70))))
    assert parts.train[KNOWN].max() < parts.validation["timestamp"].min()  # type: ignore[operator]
    assert parts.validation[KNOWN].max() < parts.held_out["timestamp"].min()  # type: ignore[operator]


def test_a_machine_whose_ranges_nobody_gave_is_left_out() -> None:
    unknown = machine(100, "pump_002").with_columns(power_now=pl.lit(None, pl.Float64))
    labelled = label_rows(LIFE, pl.concat([machine(100), unknown]), log(30))
    assert labelled["machine_id"].unique().to_list() == ["pump_001"]


def test_a_truth_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="silver/maintenance_log has the outcomes, and does not exist yet"):
        label_rows(LIFE, machine(10))


def test_reports_of_a_city_with_servers_of_its_own_may_take_weeks(config: Settings) -> None:
    def delay(**changes: object) -> timedelta:
        settings = config.model_copy(update=changes)
        return delay_of("payment_fraud", timedelta(minutes=30), timedelta(days=30), settings)

    assert delay() == timedelta(minutes=30)
    assert delay(kafka_address="kafka:9092") == timedelta(days=30)
    assert delay(kafka_address="kafka:9092", label_days={"payment_fraud": 45.0}) == timedelta(days=45)
    assert delay(label_days={"another": 45.0}) == timedelta(minutes=30)
