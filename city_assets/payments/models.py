"""Which payments are frauds: the city's model, and that of the handbook's benchmark."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Floats
from city.models.boosting import boosted, defaults, space
from city.models.labels import LABEL, Reported
from city.models.model import Model, Parameters, Stream
from city_assets.payments.contract import REPORTED_WITHIN

DAYS = (1, 7, 30)
GIVEN = (
    *(f"card_{what}_{days}d" for days in DAYS for what in ("count", "mean")),
    *(f"terminal_{what}_{days}d" for days in DAYS for what in ("count", "risk")),
)
"""What must be known of a payment's card and terminal: how many payments in so many days, their mean amount, and the
share of frauds among those that are old enough to be known."""
FEATURES = (
    *("amount", "weekend", "night", *GIVEN, "amount_to_usual", "mean_1d_to_usual", "mean_7d_to_usual"),
    *(f"terminal_frauds_{days}d" for days in DAYS),
    *("largest_3d", "count_3d", "unusual_3d"),
)
_UNUSUAL = 3.0
"""Times what the card usually pays."""


def fraud_features(payments: pl.DataFrame) -> pl.DataFrame:
    """Adds the FEATURES to payments (columns `payment`, `card`, `terminal`, `at`, `amount`, `weekend`, `night` and
    GIVEN), each from what was known when it was made. Sorted by time."""
    usual = pl.col("card_mean_30d") + 1.0  # a card's first payment has no mean yet
    found = payments.sort("at", "payment").with_columns(
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
    return found.with_columns(
        largest_3d=pl.col("amount_to_usual").rolling_max_by("at", "3d").over("card"),
        count_3d=each.rolling_sum_by("at", "3d").over("card"),
        unusual_3d=unusual.rolling_sum_by("at", "3d").over("card"),
    )


def fraud_model(seed: int = 0) -> Any:
    """A classifier: boosted trees and a forest, averaged. Validated forward in time, the two together rank frauds
    better than either."""
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


def calibrated(model: Any, x: Floats, y: Floats, cards: NDArray[Any], folds: int = 3) -> Any:
    """Fits the model on all rows, and a logistic curve on what it gave cards that it had not seen, so that its
    probabilities are frequencies. The ranking stays as it was.

    Raises ValueError where the rows are of one class only.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(y)) < 2:
        raise ValueError("the payments are all of one class: there is nothing to tell apart")
    splits = list(StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(x, y, cards))
    return CalibratedClassifierCV(model, method="sigmoid", cv=splits, ensemble=False).fit(x, y)


def cheapest_threshold(probability: Floats, fraud: Floats, amount: Floats, review: float = 5.0) -> float:
    """The probability from which a look at a payment, which costs `review`, is worth it: the threshold with the least
    total of looks and missed frauds' amounts on known payments."""
    order = np.argsort(-probability)
    looked_at = np.arange(len(order) + 1) * review
    missed = amount[order] * fraud[order]
    cost = looked_at + missed.sum() - np.concatenate([[0.0], missed.cumsum()])
    best = int(np.argmin(cost))
    return float(probability[order][best - 1]) if best else float("inf")


GENUINE, FRAUD = "genuine", "fraud"
INPUTS = (
    *("amount", "amount_to_usual", "amount_to_largest", "hour_of_day", "is_weekend", "is_online"),
    *("seconds_since_last", "seconds_since_third", "payments_10min", "payments_1h", "km_from_last", "kmh_from_last"),
    *("same_device", "same_category", "payments_known"),
)


def calibrated_boosting(parameters: Parameters) -> Any:
    """Boosted trees whose probabilities are frequencies, by a logistic curve on what they gave rows not seen."""
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(boosted("classification")(parameters), method="sigmoid", cv=3, ensemble=False)


def cost_threshold(rows: pl.DataFrame, probability: Floats) -> float:
    """The cheapest threshold on labelled payments; never so high that nothing is looked at."""
    fraud = (rows[LABEL] == FRAUD).to_numpy().astype(float)
    return min(cheapest_threshold(probability, fraud, rows["amount"].to_numpy()), 1.0)


def fraud_message(rows: pl.DataFrame) -> pl.DataFrame:
    """Messages of `fraud-scores`. Contributions, to the probability by input, are of frauds."""
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


FRAUDS = Model(
    name="payment_fraud",
    means="How probable it is that a payment is not its card owner's.",
    features="payment_features",
    inputs=INPUTS,
    label=Reported(
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
    segments=("is_online",),
    stream=Stream("fraud-scores", fraud_message, pl.col("prediction") == FRAUD),
    least_rows=2_000,
)

MODELS = (FRAUDS,)
