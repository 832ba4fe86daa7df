"""Predictions for payments as they happen: their features are those that the stream computes."""

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
import requests

from city import questdb
from city.features.events import EventRows
from city.features.online import online_store, push
from city.models.exported import Calibration
from city.models.model import ModelError, models
from city.models.raw_event import RawEvent
from city.models.registry import Registry
from city.serving import event_checks, raw_events
from city.serving.raw_events import RawEvents
from city.settings import Settings
from city.sources.times import read_times
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.sinks.questdb import QuestDBSink, ensure_tables
from city.tables.schema import schema
from city.web.problems import Problem
from city_assets.payments.contract import PAYMENTS
from city_assets.payments.models import FRAUDS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators.world.payers import City
from tests.city.serving.served import anything, registered, serving
from tests.events import encode, raw
from tests.live import until
from tests.simulated import paid

DOCUMENTS = {
    "amount": 250.0,
    "merchant_category": "electronics",
    "hour_of_day": 14,
    "is_weekend": False,
    "risk_score": 0.3,
}


@pytest.fixture
def events(config: Settings) -> RawEvents:
    return RawEvents(FRAUDS, config)


def problem(events: RawEvents, **payment: Any) -> list[tuple[str, str]]:
    with pytest.raises(Problem) as refused:
        events.features([{"amount": 10.0, "merchant_category": "fuel"} | payment], ["features"])
    assert refused.value.status == 422
    return list(refused.value.errors)


def test_a_payment_of_an_unknown_card_has_the_features_of_a_first_payment(events: RawEvents) -> None:
    features, rows = events.features([DOCUMENTS], ["features"])
    first = features.row(0, named=True)
    assert first["amount"] == 250.0
    assert (first["hour_of_day"], first["is_weekend"], first["is_online"]) == (14, False, False)
    assert (first["payments_known"], first["seconds_since_last"]) == (0.0, None)
    assert rows.shape == (1, len(FRAUDS.inputs))


def test_fields_that_are_missing_come_from_the_time_in_the_city(events: RawEvents) -> None:
    now = datetime.now(UTC)
    saturday = (now - timedelta(days=(now.weekday() - 5) % 7 or 7)).date()
    payment = {"amount": 10.0, "merchant_category": "a new one", "timestamp": f"{saturday}T03:30:00Z"}
    features = events.features([payment], ["features"])[0].row(0, named=True)
    assert (features["hour_of_day"], features["is_weekend"]) == (22, False), "a Friday evening in New York"
    later = events.features([payment | {"timestamp": f"{saturday}T14:30:00Z"}], ["features"])[0].row(0, named=True)
    assert (later["hour_of_day"], later["is_weekend"]) == (9, True)


def test_a_payment_may_bring_the_history_of_its_card_and_terminal(events: RawEvents) -> None:
    history = {"card_mean_30d": 49.0, "card_count_7d": 3.0, "terminal_fraud_share_7d": 0.25, "terminal_count_7d": 8}
    computed = events.features([DOCUMENTS | history | {"terminal": "t-1"}, DOCUMENTS], ["a", "b"])[0]
    assert computed["amount_to_mean_30d"].to_list() == [5.0, None]
    assert computed["card_count_7d"].to_list() == [3, None]
    assert computed["terminal_frauds_7d"].to_list() == [2.0, None]
    assert computed["merchant_category"].to_list() == ["electronics"] * 2


@pytest.mark.parametrize(
    ("payment", "field", "advice"),
    [
        ({"amount": -5.0}, "amount", "is outside 0.01 to 100000 USD"),
        ({"amount": "much"}, "amount", "is no number"),
        ({"amount": None}, "amount", "is missing"),
        ({"merchant_category": 7}, "merchant_category", "is no text"),
        ({"hour_of_day": 9.5}, "hour_of_day", "is no whole number"),
        ({"is_weekend": "no"}, "is_weekend", "is neither true nor false"),
        ({"timestamp": "1795648140"}, "timestamp", "is '1795648140' (seconds since 1970?), not an ISO 8601 time"),
        ({"timestamp": "1500-01-01T00:00:00Z"}, "timestamp", "is more than 30 days old"),
        ({"timestamp": "2500-12-31T23:59:59Z"}, "timestamp", "is more than 1 minute ahead"),
        ({"card": "4111111111111111"}, "card", "does not match"),
        ({"colour": "red"}, "colour", "is no field of payments: leave it out"),
        ({"terminal": 7}, "terminal", "is no text"),
        ({"terminal": "a b"}, "terminal", "does not match"),
        ({"card_count_7d": 2.5}, "card_count_7d", "is no whole number"),
        ({"card_mean_30d": "much"}, "card_mean_30d", "is no number"),
        ({"card_mean_1d": -1.0}, "card_mean_1d", "is not at least 0 USD"),
        ({"terminal_fraud_share_1d": 1.5}, "terminal_fraud_share_1d", "is outside 0 to 1"),
        ({"terminal_count_1d": True}, "terminal_count_1d", "is no number"),
    ],
)
def test_a_wrong_field_is_named(events: RawEvents, payment: dict[str, Any], field: str, advice: str) -> None:
    ((path, message),) = problem(events, **payment)
    assert path == f"features.{field}"
    assert advice in message


def test_a_model_of_windows_takes_no_events() -> None:
    (other,) = (model for model in models().values() if model.features == "traffic_features" and "15" in model.name)
    event = RawEvent(contract=VEHICLE_POSITIONS, needed=("speed",))
    with pytest.raises(ModelError, match="is not made from the events of vehicle_positions, so a request cannot give"):
        replace(other, event=event).check()
    with pytest.raises(ModelError, match="two models are called 'fraud_detector': rename one of them"):
        models([FRAUDS, replace(other, aliases=("fraud_detector",))])


def test_without_questdb_a_known_card_is_refused_with_advice(config: Settings) -> None:
    events = RawEvents(FRAUDS, config.model_copy(update={"questdb_address": "127.0.0.1:1"}))
    events.features([DOCUMENTS], ["features"])
    with pytest.raises(Problem, match="QuestDB does not answer: try again, or leave out card") as refused:
        events.features([DOCUMENTS | {"card": "card_00001"}], ["features"])
    assert refused.value.status == 503


def test_a_login_that_questdb_refuses_is_not_called_a_missing_answer(
    events: RawEvents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise questdb.QuestDBError("refuses the login (HTTP 401): check CITY_QUESTDB_TOKEN")

    monkeypatch.setattr(raw_events, "rows", refuse)
    with pytest.raises(
        Problem, match="QuestDB refuses the query or the login. See the server's log, or leave out card"
    ):
        events.features([DOCUMENTS | {"card": "card_00001"}], ["features"])
    assert "check CITY_QUESTDB_TOKEN" in caplog.text


def test_texts_of_many_events_are_read_as_columns(events: RawEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading each time alone took 8 to 38 seconds for 10,000 events."""
    lengths = []

    def counted(texts: pl.Series, zone: str) -> pl.Series:
        lengths.append(len(texts))
        return read_times(texts, zone)

    monkeypatch.setattr(event_checks, "read_times", counted)
    monkeypatch.setattr(raw_events, "read_times", counted)
    now = datetime.now(UTC).isoformat()
    payment = {"amount": 10.0, "merchant_category": "fuel", "timestamp": now}
    features, _ = events.features([payment] * 1_000, [str(n) for n in range(1_000)])
    assert features.height == 1_000
    assert lengths == [1_000, 1_000]
    payments = [payment, payment | {"timestamp": "soon"}, payment | {"card": "4111"}, payment | {"amount": "x"}]
    with pytest.raises(Problem) as refused:
        events.features(payments, ["a", "b", "c", "d"])
    assert [path for path, _ in refused.value.errors] == ["b.timestamp", "c.card", "d.amount"]


def test_the_features_are_those_of_the_stream(stack: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = datetime.now(UTC) - timedelta(hours=6)
    payments = paid(City(0, faults=20.0, rate=0.02, cards=20), begin.timestamp(), begin.timestamp() + 5 * 3600)
    contract = replace(PAYMENTS, name="raw_payments")
    sent = payments[PAYMENTS]
    rows, rejects = decode(contract, raw(encode(*sent), arrived=datetime.now(UTC)), {})
    assert rejects.is_empty(), rejects["reasons"][0].to_list()
    bronze = BronzeStream(stack.lake, contract)
    bronze.load([0])
    ensure_tables(stack.questdb, contract)
    sink = QuestDBSink(contract, stack.questdb, bronze)
    position = sink.open({})
    sink.apply(rows, position, lambda: {})
    sink.close()
    until(lambda: questdb.rows(stack.questdb, "SELECT count() FROM raw_payments")[0][0] == rows.height)
    expected = EventRows(FRAUDS.view, PAYMENTS, stack).compute(rows).sort("timestamp", "card")
    events = RawEvents(FRAUDS, stack)
    monkeypatch.setattr(events, "_contract", contract)
    by_time = sorted(sent, key=lambda payment: (payment["timestamp"], payment["card"]))
    flat = [payment | payment["location"] for payment in by_time]
    for payment in flat:
        del payment["location"]
    computed, _ = events.features(flat, [str(n) for n in range(len(flat))])
    assert computed.equals(expected.select(FRAUDS.answer_columns), null_equal=True)
    assert computed["payments_known"].max() == 8
    alone, _ = events.features(flat[-1:], ["features"])
    assert alone.equals(computed.tail(1), null_equal=True)


def test_each_event_has_the_last_ones_before_it_and_no_others() -> None:
    chance = np.random.default_rng(0)
    start, day = datetime(2026, 11, 1, tzinfo=UTC), timedelta(days=1)
    times = [start + float(at) * 3 * day for at in chance.random(400)]
    events = pl.DataFrame({"card": chance.choice(["a", "b", "c"], 400), "at": times}).sort("card", "at")
    moments = pl.DataFrame({"card": chance.choice(["a", "b", "x"], 50), "_place": range(50)}).with_columns(
        pl.Series("_at", [start + float(at) * 3 * day for at in chance.random(50)])
    )
    moments = moments.with_columns(_at=pl.when(pl.col("_place") == 0).then(events["at"][7]).otherwise("_at"))
    selected = raw_events._last_before(events, moments, "card", "at", 8)
    joined = moments.join(events, on="card").filter(pl.col("at") < pl.col("_at"), pl.col("at") > pl.col("_at") - day)
    expected = joined.sort("at").group_by("_place", maintain_order=True).tail(8)
    columns = ["_place", "card", "at"]
    assert selected.select(columns).sort(columns).equals(expected.select(columns).sort(columns))
    assert selected.height > 100


THRESHOLDS = {"electronics": 0.75, "fuel": 1e-9}


@pytest.fixture
def server(config: Settings) -> Iterator[str]:
    calibration = Calibration(threshold=0.25, thresholds=THRESHOLDS)
    registered(Registry(config), FRAUDS, anything(FRAUDS, calibration))
    with serving(config, [FRAUDS]) as url:
        yield url


def test_the_documents_requests_are_answered(server: str, config: Settings) -> None:
    single = {"features": DOCUMENTS, "model_name": "fraud_detector", "return_probabilities": True}
    answer = requests.post(f"{server}/predict", json=single, timeout=20)
    assert answer.status_code == 200, answer.text
    prediction = answer.json()
    assert prediction["model"] == "payment_fraud"
    assert set(prediction["probabilities"]) == {"genuine", "fraud"}
    assert prediction["features"]["amount"] == 250.0
    batch = {
        "model_name": "fraud_detector",
        "instances": [
            {"amount": 100.0, "merchant_category": "grocery"},
            {"amount": 500.0, "merchant_category": "electronics"},
        ],
    }
    many = requests.post(f"{server}/predict/batch", json=batch, timeout=20)
    assert many.status_code == 200, many.text
    assert len(many.json()["predictions"]) == 2
    mixed = batch | {"instances": [*batch["instances"], {"amount": 5.0, "hour_of_day": 3}]}  # type: ignore[misc]
    refused = requests.post(f"{server}/predict/batch", json=mixed, timeout=20)
    assert refused.status_code == 422
    wrong = requests.post(f"{server}/predict", json=single | {"features": {"merchant_category": "fuel"}}, timeout=20)
    assert wrong.status_code == 422
    assert wrong.json()["errors"] == [{"field": "features.amount", "message": "is missing"}]
    text = requests.post(f"{server}/predict", json=single | {"features": {"amount": "12"}}, timeout=20)
    assert text.status_code == 422


def test_an_answer_has_the_threshold_of_its_category(server: str, config: Settings) -> None:
    store, columns = online_store(config), schema(FRAUDS.view.table)
    of_card = {"card": "card_1", "timestamp": datetime.now(UTC), "merchant_category": "fuel", "amount": 12.0}
    of_card |= dict.fromkeys(("hour_of_day", "payments_10min", "payments_1h", "same_device", "same_category"), 1)
    of_card |= {"payments_known": 0, "is_weekend": False, "is_online": False}
    push(store, FRAUDS.view, pl.DataFrame([of_card | {n: None for n in columns if n not in of_card}], schema=columns))
    vector = dict.fromkeys(FRAUDS.inputs, 1.0)
    cases: list[tuple[dict[str, Any], float]] = [
        ({"features": DOCUMENTS}, 0.75),
        ({"features": DOCUMENTS | {"merchant_category": "a new one"}}, 0.25),
        ({"entity": {"card": "card_1"}}, 1e-9),
        ({"features": vector}, 0.25),
    ]
    for body, threshold in cases:
        answer = requests.post(f"{server}/predict", json=body | {"model_name": "fraud_detector"}, timeout=20)
        assert answer.status_code == 200, answer.text
        assert answer.json()["threshold"] == threshold
        if threshold == 1e-9:
            assert answer.json()["prediction"] == "fraud", "above the threshold of fuel"
    batch = {
        "model_name": "fraud_detector",
        "instances": [{"amount": 5.0, "merchant_category": name} for name in ("fuel", "electronics", "books")],
    }
    many = requests.post(f"{server}/predict/batch", json=batch, timeout=20).json()["predictions"]
    assert [one["threshold"] for one in many] == [1e-9, 0.75, 0.25]
    assert many[0]["prediction"] == "fraud"
    rows = pl.DataFrame([vector | {"merchant_category": name} for name in ("electronics", "books")])
    content = io.BytesIO()
    rows.write_parquet(content)
    answered = requests.post(
        f"{server}/predict/batch?model_name=payment_fraud",
        data=content.getvalue(),
        headers={"content-type": "application/vnd.apache.parquet"},
        timeout=20,
    )
    assert answered.status_code == 200, answered.text
    assert pl.read_parquet(answered.content)["threshold"].to_list() == [0.75, 0.25]
