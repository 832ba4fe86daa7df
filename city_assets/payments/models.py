"""The model of fraud among payments."""

from datetime import timedelta
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Floats
from city.models.boosting import boosted_trees, defaults, space
from city.models.estimator import Classifier
from city.models.forests import random_forest
from city.models.labels import LABEL, DelayedReport, delay_of
from city.models.model import Model, Parameters, Stream
from city.models.raw_event import LOCAL, RawEvent
from city_assets.payments.contract import HISTORY_DAYS, PAYMENTS, SIMULATED_REPORT

if TYPE_CHECKING:
    from optuna import Trial

FOREST_SHARE = "forest_share"
"""The parameter with the forest's weight."""
_FOREST_TREES = 120
GENUINE, FRAUD = "genuine", "fraud"
INPUTS = (
    *("amount", "amount_to_usual", "amount_to_largest", "hour_of_day", "is_weekend", "is_online"),
    *("seconds_since_last", "seconds_since_third", "payments_10min", "payments_1h", "km_from_last", "kmh_from_last"),
    *("same_device", "same_category", "payments_known"),
    *("amount_to_mean_30d", "mean_1d_to_30d", "mean_7d_to_30d", "largest_to_mean_30d", "unusual_known"),
    *(f"card_count_{days}d" for days in HISTORY_DAYS),
    *(f"terminal_{what}_{days}d" for days in HISTORY_DAYS for what in ("fraud_share", "frauds")),
)
"""The inputs. Those of a payment's history are null in a city whose payments come without it."""


def trees(parameters: Parameters) -> Classifier:
    """Builds a classifier: a weighted average of boosted trees and a random forest, or boosted trees alone.

    `forest_share` is the forest's weight in the average; at 0 there is no forest. The other parameters are those of the
    boosted trees. Which is better depends on the payments, so the search chooses: on unseen cards, the forest raises
    the average precision where payments come with their history, and lowers it where they do not. By default there is
    none, because it takes several times as long to train, and as much memory.
    """
    from sklearn.ensemble import VotingClassifier

    share = parameters.get(FOREST_SHARE, 0.0)
    others = {name: value for name, value in parameters.items() if name != FOREST_SHARE}
    # No payments are kept back to stop early by: among so few frauds, each that is not learned from costs.
    boosting = cast(
        Classifier, boosted_trees("classification")({"max_features": 0.3, "early_stopping": False, **others})
    )
    if not share:
        return boosting
    forest = random_forest(_FOREST_TREES, min_samples_leaf=3, max_samples=0.3)
    estimators = [("boosting", boosting), ("forest", forest)]
    return VotingClassifier(estimators, voting="soft", weights=np.array([1 - share, share]), flatten_transform=False)


def trees_space(trial: "Trial") -> Parameters:
    """Draws the parameters of `trees` for an Optuna trial."""
    return {
        **space((7, 31), (20, 200))(trial),
        FOREST_SHARE: trial.suggest_categorical(FOREST_SHARE, (0.0, 0.3, 0.5, 0.7)),
    }


REVIEW_USD = 5.0
"""What the review of a payment costs."""


def cheapest_threshold(probability: Floats, fraud: Floats, amount: Floats, review: float = REVIEW_USD) -> float:
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


def cost_threshold(rows: pl.DataFrame, probability: Floats) -> float:
    """Returns the cheapest threshold on labelled payments, at most 1. At 1 no payment is reviewed.

    `rows` (n rows) has the label and the amount. `probability` (n,) is that of a fraud.
    """
    fraud = (rows[LABEL] == FRAUD).to_numpy().astype(float)
    return min(cheapest_threshold(probability, fraud, rows["amount"].to_numpy()), 1.0)


def payment_costs(rows: pl.DataFrame, alarm: NDArray[np.bool_]) -> Floats:
    """Returns the cost of each payment (n,) in USD: that of its review, or the amount of a missed fraud.

    `rows` (n rows) has the label and the amount, and `alarm` (n,) is whether a payment is reviewed.
    """
    lost = np.where((rows[LABEL] == FRAUD).to_numpy(), rows["amount"].to_numpy(), 0.0)
    return np.where(alarm, REVIEW_USD, lost)


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
    estimator=trees,
    is_calibrated=True,
    space=trees_space,
    defaults={**defaults(15, 40), FOREST_SHARE: 0.0},
    groups=("card",),
    threshold=cost_threshold,
    threshold_by="merchant_category",
    threshold_cost=payment_costs,
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
    first_rows=400_000,  # a tenth of a per cent of the payments are frauds: fewer rows have some two hundred
)

MODELS = (FRAUDS,)
