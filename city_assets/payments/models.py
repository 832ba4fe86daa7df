"""Models of fraud among payments: the city's model, and the model of the handbook's benchmark."""

from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Floats
from city.models.boosting import boosted_trees, defaults, space
from city.models.estimator import Classifier
from city.models.labels import LABEL, DelayedReport, delay_of
from city.models.model import Model, Parameters, Stream
from city.models.raw_event import LOCAL, RawEvent
from city_assets.payments.contract import PAYMENTS, SIMULATED_REPORT

DAYS = (1, 7, 30)
"""The lengths, in days, of the periods that the features count over."""
GIVEN = (
    *(f"card_{what}_{days}d" for days in DAYS for what in ("count", "mean")),
    *(f"terminal_{what}_{days}d" for days in DAYS for what in ("count", "risk")),
)
"""The columns that a payment's card and terminal must have.

These are the number of payments in so many days, their mean amount, and the share of frauds among the payments that are
old enough for a fraud to be known.
"""
FEATURES = (
    *("amount", "weekend", "night", *GIVEN, "amount_to_usual", "mean_1d_to_usual", "mean_7d_to_usual"),
    *(f"terminal_frauds_{days}d" for days in DAYS),
    *("largest_3d", "count_3d", "unusual_3d"),
)
"""The inputs of the benchmark's model."""
_UNUSUAL = 3.0
"""A payment of more than so many times the card's usual amount is unusual."""


def fraud_features(payments: pl.DataFrame) -> pl.DataFrame:
    """Adds the FEATURES to payments, and sorts them by time.

    `payments` has the columns `payment`, `card`, `terminal`, `at`, `amount`, `weekend`, `night` and GIVEN. Each feature
    uses only what was known at the time of the payment.
    """
    usual = pl.col("card_mean_30d") + 1.0  # a card's first payment has no mean yet
    features = payments.sort("at", "payment").with_columns(
        amount_to_usual=pl.col("amount") / usual,
        mean_1d_to_usual=pl.col("card_mean_1d") / usual,
        mean_7d_to_usual=pl.col("card_mean_7d") / usual,
        **{
            f"terminal_frauds_{days}d": pl.col(f"terminal_risk_{days}d") * pl.col(f"terminal_count_{days}d")
            for days in DAYS
        },
    )
    each = pl.col("amount").is_not_null().cast(pl.Float64)
    unusual = (pl.col("amount_to_usual") > _UNUSUAL).cast(pl.Float64)
    return features.with_columns(
        largest_3d=pl.col("amount_to_usual").rolling_max_by("at", "3d").over("card"),
        count_3d=each.rolling_sum_by("at", "3d").over("card"),
        unusual_3d=unusual.rolling_sum_by("at", "3d").over("card"),
    )


def fraud_model(seed: int = 0) -> Classifier:
    """Builds a classifier: the average of boosted trees and a random forest.

    Validated forward in time, the average ranks frauds better than either of them.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier

    boosting = HistGradientBoostingClassifier(
        max_iter=150,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=40,
        l2_regularization=10,
        max_features=0.3,
        random_state=seed,
    )
    forest = RandomForestClassifier(200, min_samples_leaf=3, n_jobs=-1, random_state=seed)
    return VotingClassifier([("boosting", boosting), ("forest", forest)], voting="soft")


class CalibratedClassifier(Classifier, Protocol):
    """A classifier with calibrated probabilities."""

    calibrated_classifiers_: list[Any]
    """scikit-learn's pairs of a fitted model and its calibration curves."""


def fit_calibrated(
    model: Classifier, x: Floats, y: Floats, cards: NDArray[np.generic], folds: int = 3
) -> CalibratedClassifier:
    """Fits the model on all rows, and calibrates its probabilities so that they are frequencies.

    The calibration is a logistic curve over predictions for cards that the model had not seen. It keeps the ranking.
    `x` are the inputs (n, f), `y` the labels (n,), 1 for a fraud, and `cards` the card of each row (n,).

    Raises ValueError if all rows are of one class.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(y)) < 2:
        raise ValueError("the payments are all of one class: there is nothing to tell apart")
    splits = list(StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(x, y, cards))
    return CalibratedClassifierCV(model, method="sigmoid", cv=splits, ensemble=False).fit(x, y)


def cheapest_threshold(probability: Floats, fraud: Floats, amount: Floats, review: float = 5.0) -> float:
    """Returns the probability from which the review of a payment is worth its cost.

    This is the threshold with the least total cost on labelled payments (n,). The cost is `review` USD for each review,
    and the amount of each missed fraud. `fraud` is 1 for a fraud, `amount` is in USD. Returns infinity if no review is
    worth its cost.
    """
    order = np.argsort(-probability)
    reviews = np.arange(len(order) + 1) * review
    missed = amount[order] * fraud[order]
    cost = reviews + missed.sum() - np.concatenate([[0.0], missed.cumsum()])
    best = int(np.argmin(cost))
    return float(probability[order][best - 1]) if best else float("inf")


GENUINE, FRAUD = "genuine", "fraud"
INPUTS = (
    *("amount", "amount_to_usual", "amount_to_largest", "hour_of_day", "is_weekend", "is_online"),
    *("seconds_since_last", "seconds_since_third", "payments_10min", "payments_1h", "km_from_last", "kmh_from_last"),
    *("same_device", "same_category", "payments_known"),
)


def calibrated_boosting(parameters: Parameters) -> Classifier:
    """Builds boosted trees with calibrated probabilities.

    The calibration is a logistic curve over predictions for rows that the trees had not seen.
    """
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(boosted_trees("classification")(parameters), method="sigmoid", cv=3, ensemble=False)


def cost_threshold(rows: pl.DataFrame, probability: Floats) -> float:
    """Returns the cheapest threshold on labelled payments, at most 1, so that some payments are always reviewed.

    `rows` (n rows) has the label and the amount. `probability` (n,) is that of a fraud.
    """
    fraud = (rows[LABEL] == FRAUD).to_numpy().astype(float)
    return min(cheapest_threshold(probability, fraud, rows["amount"].to_numpy()), 1.0)


def fraud_message(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the messages of the topic `fraud-scores`.

    Only predicted frauds have contributions: the change of the probability by input.
    """
    return rows.select(
        "timestamp",
        "payment_id",
        "card",
        "amount",
        fraud_probability=pl.col("output").list.get(1),
        threshold="threshold",
        is_fraud=pl.col("prediction") == FRAUD,
        confidence="confidence",
        feature_contributions="contributions",
    )


_NAME = "payment_fraud"
REPORTED_WITHIN = delay_of(_NAME, SIMULATED_REPORT, timedelta(days=30))
"""A payment that nobody reports within this time counts as genuine."""

FRAUDS = Model(
    name=_NAME,
    description="How probable it is that a payment is not its card owner's.",
    features="payment_features",
    inputs=INPUTS,
    label=DelayedReport(
        truth="silver/chargebacks",
        key="payment_id",
        time="timestamp",
        within=REPORTED_WITHIN,
        classes=(GENUINE, FRAUD),
    ),
    estimator=calibrated_boosting,
    space=space((7, 31), (20, 200)),
    defaults=defaults(15, 40),
    groups=("card",),
    threshold=cost_threshold,
    event=RawEvent(
        contract=PAYMENTS,
        needed=("amount", "merchant_category"),
        defaults={"hour_of_day": pl.col(LOCAL).dt.hour(), "is_weekend": pl.col(LOCAL).dt.weekday() > 5},
        unused=("risk_score",),
    ),
    aliases=("fraud_detector",),
    segments=("is_online",),
    stream=Stream("fraud-scores", fraud_message, pl.col("prediction") == FRAUD),
    least_rows=2_000,
)

MODELS = (FRAUDS,)
