"""The handbook's payments pass the contract, and its protocol leaves out the cards that are known by then."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from benchmarks import fraud
from city.settings import settings
from city.sources.mapping import map_messages
from city_assets.payments.contract import HISTORY_DAYS

FILE = settings().data / fraud.FILE
DAY = datetime(2018, 8, 8, tzinfo=UTC)


def test_the_sample_of_the_source_is_a_payment() -> None:
    mapped = map_messages(fraud.HANDBOOK, [fraud.HANDBOOK.sample.encode()])
    assert mapped.rejected == {}
    (payment,) = mapped.events.iter_rows(named=True)
    assert (payment["card"], payment["terminal"], payment["is_weekend"]) == ("card_1111", "terminal_2328", False)
    assert (payment["card_count_1d"], payment["card_mean_1d"], payment["latitude"]) == (2, None, None)


def test_a_card_is_left_out_from_the_day_after_its_report() -> None:
    rows = pl.DataFrame(
        {"card": ["a", "a", "a", "b"], "timestamp": [DAY + timedelta(hours=h) for h in (1, 30, 60, 60)]}
    )
    reports = pl.DataFrame({"card": ["a", "a"], "timestamp": [DAY + timedelta(hours=31), DAY + timedelta(hours=90)]})
    unknown_cards = fraud.without_known(rows, reports)
    assert unknown_cards["timestamp"].to_list() == [DAY + timedelta(hours=h) for h in (1, 30, 60)]
    assert unknown_cards["card"].to_list() == ["a", "a", "b"]


def test_a_card_that_was_found_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fraud, "_TOP", 1)
    days = [DAY, DAY, DAY + timedelta(days=1), DAY + timedelta(days=1)]
    rows = pl.DataFrame(
        {"card": ["a", "b", "a", "b"], "_day": days, "probability": [0.9, 0.1, 0.9, 0.1], "fraud": [True] * 4}
    )
    assert fraud.card_precision(rows) == 1.0
    assert fraud.card_precision(rows.with_columns(fraud=pl.col("card") == "a")) == 0.5


@pytest.mark.skipif(not FILE.exists(), reason="needs the handbook's payments in CITY_DATA_DIR")
def test_the_handbooks_payments_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    first = pl.read_parquet(FILE).head(3_000)
    monkeypatch.setattr(fraud.pl, "read_parquet", lambda path: first)
    payments, reports, rejected = fraud.events()
    assert payments.height == 3_000 - rejected
    assert rejected < 3
    assert reports.height == first["TX_FRAUD"].sum() > 10
    assert payments.select(f"card_mean_{days}d" for days in HISTORY_DAYS).null_count().sum_horizontal()[0] == 0
