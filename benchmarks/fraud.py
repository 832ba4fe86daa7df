"""Frauds among the Fraud Detection Handbook's card payments, by the model that the city serves.

The file's payments pass the contract, the feature table and the training of the platform. The split is the handbook's:
seven days to train, seven that frauds take to become known, seven to test, without the cards already known as
fraudulent. The history of a payment's card and terminal before the file's first day comes with the payment.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from benchmarks._real import real
from benchmarks._served import decode_events, judge_by_protocol
from city.arrays import Floats
from city.features.events import EventRows
from city.models.exported import Exported
from city.models.fitting import FittedModel
from city.models.judge import calibration_error
from city.models.labels import LABEL, DelayedReport
from city.models.model import Model
from city.models.predictions import PREDICTION, answers
from city.serving.raw_events import RawEvents
from city.settings import settings
from city.sources.mapping import map_messages
from city.sources.model import Always, At, Joined, Source
from city_assets.payments.contract import CHARGEBACKS, HISTORY_DAYS, PAYMENTS
from city_assets.payments.models import FOREST_SHARE, FRAUD, FRAUDS

FILE = "fraud/fdh_2018-07-25_2018-08-14.parquet"
TRAIN, DELAY, TEST = (timedelta(days=7),) * 3
_TOP = 100
_CHUNK = 20_000
_ONLINE = 1_000
"""The number of test payments that are also predicted for as `/predict` does."""
_LATEST = timedelta(days=36_500)
"""The file is older than what a server takes for an event of now."""
_FOREST_SHARE = 0.7
"""The value of the search space that is best in a cross-validation over the cards of the training week.

The protocol's split leaves no rows to search on.
"""
PUBLISHED = {
    "random forest": {"auc": 0.867, "average_precision": 0.658, "card_precision_100": 0.287},
    "XGBoost": {"auc": 0.862, "average_precision": 0.639, "card_precision_100": 0.273},
}
HANDBOOK = Source(
    name="fraud_detection_handbook",
    contract=PAYMENTS,
    description="Rows of the handbook's transformed data set. It has no devices but terminals, no places and no "
    "merchant categories.",
    documentation="https://fraud-detection-handbook.github.io/fraud-detection-handbook/",
    sample='{"TRANSACTION_ID": 1102483, "TX_DATETIME": "2018-07-25 00:00:29", "HOUR": 0, "CUSTOMER_ID": 1111, '
    '"TERMINAL_ID": 2328, "TX_AMOUNT": 31.45, "TX_DURING_WEEKEND": 0, "CUSTOMER_ID_NB_TX_1DAY_WINDOW": 2.0}',
    names={"customer": At("CUSTOMER_ID"), "number": At("TERMINAL_ID"), "transaction": At("TRANSACTION_ID")},
    fields={
        "timestamp": At("TX_DATETIME"),
        "payment_id": Joined("{transaction}"),
        "card": Joined("card_{customer}"),
        "device": Joined("terminal_{number}"),
        "terminal": Joined("terminal_{number}"),
        "merchant_category": Always("unknown"),
        "amount": At("TX_AMOUNT"),
        "hour_of_day": At("HOUR"),
        "is_weekend": At("TX_DURING_WEEKEND", words={"0": False, "1": True}),
        **{f"card_count_{n}d": At(f"CUSTOMER_ID_NB_TX_{n}DAY_WINDOW") for n in HISTORY_DAYS},
        **{f"card_mean_{n}d": At(f"CUSTOMER_ID_AVG_AMOUNT_{n}DAY_WINDOW") for n in HISTORY_DAYS},
        **{f"terminal_count_{n}d": At(f"TERMINAL_ID_NB_TX_{n}DAY_WINDOW") for n in HISTORY_DAYS},
        **{f"terminal_fraud_share_{n}d": At(f"TERMINAL_ID_RISK_{n}DAY_WINDOW") for n in HISTORY_DAYS},
    },
)


def run(tell: Callable[[str], None]) -> dict[str, Any]:
    """Measures how well the served model ranks and tells frauds, and whether it answers a request as it was judged.

    It measures AUC, average precision, the card precision of the 100 most suspect cards a day, and how well the
    probabilities are calibrated. The threshold is set on the training week.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    payments, reports, rejected = events()
    tell(f"{payments.height:,} payments are valid, {rejected} are not; {reports.height:,} chargebacks")
    config = settings()
    rows = EventRows(FRAUDS.view, PAYMENTS, config).compute(payments)
    first = payments["timestamp"].min()
    assert isinstance(first, datetime)
    first_day = first.replace(hour=0, minute=0, second=0, microsecond=0)
    model = handbook_model()
    fitted = judge_by_protocol(
        model, rows, first_day + TRAIN + DELAY, truth=reports, validation=0, tell=lambda line: tell(line[:150])
    )
    probability = fitted.predicted[:, 1]
    judged = fitted.parts.held_out.with_columns(probability=probability)
    answered = answers(model, _calibration(model, fitted), fitted.predicted, fitted.parts.held_out)
    judged = without_known(judged.with_columns(answered), reports)
    probability, truth = judged["probability"].to_numpy(), (judged[LABEL] == FRAUD).to_numpy()
    alarm = (judged[PREDICTION] == FRAUD).to_numpy()
    return {
        "bench": "fraud",
        "train_payments": fitted.parts.train.height,
        "test_payments": judged.height,
        "test_frauds": int(truth.sum()),
        "rejected_payments": rejected,
        "auc": round(float(roc_auc_score(truth, probability)), 4),
        "average_precision": round(float(average_precision_score(truth, probability)), 4),
        "card_precision_100": round(card_precision(judged.with_columns(fraud=pl.Series(truth))), 4),
        "calibration_error": round(calibration_error(probability, truth), 5),
        "threshold": round(float(judged["threshold"][0]), 4),
        "precision_at_threshold": round(float(truth[alarm].mean()), 3),
        "recall_at_threshold": round(float(alarm[truth].mean()), 3),
        "onnx_bytes": len(fitted.exported),
        "online_payments": _ONLINE,
        "largest_online_difference": online_difference(model, fitted, payments, judged),
        "published": PUBLISHED,
    }


def handbook_model() -> Model:
    """Returns the city's model for frauds that take seven days to become known."""
    assert isinstance(FRAUDS.label, DelayedReport)
    assert FRAUDS.event is not None
    event = replace(FRAUDS.event, contract=replace(PAYMENTS, max_age=_LATEST))
    defaults = {**FRAUDS.defaults, FOREST_SHARE: _FOREST_SHARE}
    return replace(FRAUDS, label=replace(FRAUDS.label, within=DELAY), event=event, defaults=defaults)


def events() -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Reads the file. Returns bronze rows of the payments and of the chargebacks, and the number of invalid payments.

    A fraud is charged back DELAY after the payment.
    """
    file = pl.read_parquet(real(FILE)).sort("TX_DATETIME", "TRANSACTION_ID")
    file = file.with_columns(pl.col("TX_DATETIME").cast(pl.Datetime("us")), HOUR=pl.col("TX_DATETIME").dt.hour())
    parts, rejected = [], 0
    for part in file.iter_slices(_CHUNK):
        lines = part.with_columns(pl.col("TX_DATETIME").dt.strftime("%Y-%m-%d %H:%M:%S"))
        mapped = map_messages(HANDBOOK, lines.write_ndjson().encode().splitlines())
        rows, invalid = decode_events(PAYMENTS, mapped.events)
        parts.append(rows)
        rejected += len(mapped.rejected) + invalid.height
    payments = pl.concat(parts)
    frauds = file.filter(pl.col("TX_FRAUD") == 1).select(payment_id=pl.col("TRANSACTION_ID").cast(pl.String))
    of_frauds = payments.join(frauds, on="payment_id", how="semi")
    reports, _ = decode_events(CHARGEBACKS, of_frauds.select(pl.col("timestamp") + DELAY, "payment_id", "card"))
    return payments, reports, rejected


def _calibration(model: Model, fitted: FittedModel) -> Any:
    return Exported(model, fitted.exported).calibration


def without_known(rows: pl.DataFrame, reports: pl.DataFrame) -> pl.DataFrame:
    """Leaves out of each day the cards of which a fraud was reported before the day, as the handbook's
    get_train_test_set does."""
    known = reports.group_by("card").agg(pl.col("timestamp").min().alias("_reported"))
    joined = rows.join(known, on="card", how="left", maintain_order="left").with_columns(
        _day=pl.col("timestamp").dt.truncate("1d")
    )
    return joined.filter((pl.col("_reported") >= pl.col("_day")).fill_null(value=True)).drop("_reported")


def card_precision(test: pl.DataFrame) -> float:
    """Computes the handbook's card precision: how many of a day's most suspect cards are fraudulent.

    A card that was found is not asked for again on later days. It is the mean of all days.
    """
    cards_found: list[str] = []
    shares = []
    for _, day in test.group_by("_day", maintain_order=True):
        cards = day.group_by("card").agg(pl.col("probability", "fraud").max()).sort("probability", descending=True)
        top = cards.filter(~pl.col("card").is_in(cards_found)).head(_TOP)
        hits = top.filter("fraud")["card"].to_list()
        shares.append(len(hits) / _TOP)
        cards_found += hits
    return float(np.mean(shares))


def online_difference(model: Model, fitted: FittedModel, payments: pl.DataFrame, judged: pl.DataFrame) -> float:
    """Returns the largest difference between the judged probability and that of a request with the raw payment.

    The request's features are those that `/predict` computes, of the card's payments before it.
    """
    sample = judged.sample(min(_ONLINE, judged.height), seed=0)
    given = sample.select("payment_id").join(payments, on="payment_id", how="left", maintain_order="left")
    fields = [field.name for field in PAYMENTS.fields]
    by_time = payments.select(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").alias("_text"), *fields)

    def read(cards: list[str], since: datetime, until: datetime) -> pl.DataFrame:
        between = pl.col("timestamp").is_between(since, until, closed="none")
        return by_time.filter(pl.col("card").is_in(cards), between).select(fields)

    requests = RawEvents(model, settings(), read)
    texts = given.select(fields).with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S.%6fZ"))
    payment_events = list(texts.iter_rows(named=True))
    _, inputs = requests.features(payment_events, [str(number) for number in range(len(payment_events))])
    online: Floats = Exported(model, fitted.exported).predict(inputs)[:, 1]
    return float(np.abs(online - sample["probability"].to_numpy()).max())
