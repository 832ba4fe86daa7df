"""Frauds among the Fraud Detection Handbook's card payments, split as the handbook has it: seven days to train, seven
that frauds take to become known, seven to test, without the cards already known as fraudulent."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from benchmarks._real import real
from city.models.judge import calibration_error
from city_assets.payments.models import FEATURES, cheapest_threshold, fit_calibrated, fraud_features, fraud_model

FILE = "fraud/fdh_2018-07-25_2018-08-14.parquet"
TRAIN, DELAY, TEST = 7, 7, 7
_TOP = 100
PUBLISHED = {
    "random forest": {"auc": 0.867, "average_precision": 0.658, "card_precision_100": 0.287},
    "XGBoost": {"auc": 0.862, "average_precision": 0.639, "card_precision_100": 0.273},
}
_NAMES = {
    **{"TRANSACTION_ID": "payment", "CUSTOMER_ID": "card", "TERMINAL_ID": "terminal", "TX_DATETIME": "at"},
    **{"TX_AMOUNT": "amount", "TX_FRAUD": "fraud", "TX_DURING_WEEKEND": "weekend", "TX_DURING_NIGHT": "night"},
    **{f"CUSTOMER_ID_NB_TX_{n}DAY_WINDOW": f"card_count_{n}d" for n in (1, 7, 30)},
    **{f"CUSTOMER_ID_AVG_AMOUNT_{n}DAY_WINDOW": f"card_mean_{n}d" for n in (1, 7, 30)},
    **{f"TERMINAL_ID_NB_TX_{n}DAY_WINDOW": f"terminal_count_{n}d" for n in (1, 7, 30)},
    **{f"TERMINAL_ID_RISK_{n}DAY_WINDOW": f"terminal_risk_{n}d" for n in (1, 7, 30)},
}


def run(tell: Callable[[str], None]) -> dict[str, Any]:
    """AUC, average precision, card precision of the 100 most suspect cards a day, and how well the probabilities are
    calibrated. The threshold is set on the training week."""
    from sklearn.metrics import average_precision_score, roc_auc_score
    from sklearn.model_selection import cross_val_predict

    payments = fraud_features(pl.read_parquet(real(FILE)).rename(_NAMES).select(_NAMES.values()))
    train, test = _split(payments.with_columns(day=pl.col("at").dt.date()))
    x, y = train.select(FEATURES).to_numpy(), train["fraud"].to_numpy()
    truth = test["fraud"].to_numpy()
    tell(f"{len(train):,} payments to train on, {y.sum():,} of them frauds; {len(test):,} to test")
    model = fit_calibrated(fraud_model(), x, y, train["card"].to_numpy())
    probability = model.predict_proba(test.select(FEATURES).to_numpy())[:, 1]
    tell("fitted and calibrated")
    held_out = cross_val_predict(fraud_model(), x, y, method="predict_proba", groups=train["card"], cv=_by_card())[:, 1]
    curve = model.calibrated_classifiers_[0].calibrators[0]
    threshold = cheapest_threshold(curve.predict(held_out), y, train["amount"].to_numpy())
    alarm = probability >= threshold
    return {
        "bench": "fraud",
        "test_payments": len(test),
        "auc": round(float(roc_auc_score(truth, probability)), 4),
        "average_precision": round(float(average_precision_score(truth, probability)), 4),
        "card_precision_100": round(_card_precision(test.with_columns(probability=probability)), 4),
        "calibration_error": round(calibration_error(probability, truth), 5),
        "threshold": round(threshold, 4),
        "precision_at_threshold": round(float(truth[alarm].mean()), 3),
        "recall_at_threshold": round(float(alarm[truth > 0].mean()), 3),
        "published": PUBLISHED,
    }


def _by_card() -> Any:
    from sklearn.model_selection import StratifiedGroupKFold

    return StratifiedGroupKFold(3, shuffle=True, random_state=0)


def _split(payments: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """As the handbook's get_train_test_set: of each test day those cards are taken out whose frauds are known by
    then, which takes DELAY days."""
    first = payments["day"].min()
    assert first is not None
    day = [first + timedelta(days=n) for n in range(TRAIN + DELAY + TEST)]  # type: ignore[operator]
    train = payments.filter(pl.col("day") < day[TRAIN])
    frauds = payments.filter(pl.col("fraud") == 1)
    parts = []
    for n in range(TEST):
        known = frauds.filter(pl.col("day") < day[TRAIN + n])["card"]
        parts.append(payments.filter(pl.col("day") == day[TRAIN + DELAY + n], ~pl.col("card").is_in(known.implode())))
    return train, pl.concat(parts)


def _card_precision(test: pl.DataFrame) -> float:
    """The handbook's: how many of a day's most suspect cards are fraudulent; a card that was found is not asked for
    again on later days. The mean of all days."""
    found: list[int] = []
    shares = []
    for _, day in test.group_by("day", maintain_order=True):
        cards = day.group_by("card").agg(pl.col("probability", "fraud").max()).sort("probability", descending=True)
        top = cards.filter(~pl.col("card").is_in(found)).head(_TOP)
        hits = top.filter(pl.col("fraud") == 1)["card"].to_list()
        shares.append(len(hits) / _TOP)
        found += hits
    return float(np.mean(shares))
