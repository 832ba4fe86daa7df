"""The remaining life of machines: the model that predicts it, and its messages.

The model predicts which share of the longest predicted life (the `life_cap` of the machine's type) is left. So one
model serves machines that live two hours, 2,000 hours or 300 cycles. Messages and the forecast convert the share by the
limits in the feature row.
"""

from datetime import timedelta
from functools import partial

import polars as pl

from city.models.blend import blend_space, trees_and_networks
from city.models.boosting import defaults
from city.models.labels import LEAST_WAITS
from city.models.model import Model, Stream
from city.models.time_to_event import TimeToEvent
from city_assets.equipment.fleet import Fleet
from city_assets.equipment.limits import ACTIONS, DEFAULT_LIMITS, LIMIT_COLUMNS, NO_ACTION


def limit(column: str) -> pl.Expr:
    """Returns a limit of feature rows. Rows of an earlier release have none, and get that of DEFAULT_LIMITS."""
    return pl.col(column).fill_null(getattr(DEFAULT_LIMITS, LIMIT_COLUMNS[column]))


def learning_shortage(history: timedelta) -> pl.Expr:
    """Returns why machines with the row's cap are not learned from, as a text; null where they are.

    A training needs rows over LEAST_WAITS caps, and reads those of the model's `history`. Machines with a longer cap
    are predicted for by what was learned from others.
    """
    cap = limit("life_cap_hours")
    hours_needed = LEAST_WAITS * cap
    hours, days = (number.ceil().cast(pl.Int64) for number in (cap, hours_needed / 24))
    text = "not learned from: a life_cap of {} h needs {} days of history, and {} days are kept"
    is_short = hours_needed > history / timedelta(hours=1)
    return pl.when(is_short).then(pl.format(text, hours, days, pl.lit(history.days)))


def sum_by_signal(fleet: Fleet, names: tuple[str, ...]) -> pl.Expr:
    """Returns the sum of the contributions of each signal's inputs, of those that `names` lists."""
    shares = pl.col("contributions").struct
    sums = pl.struct(
        pl.sum_horizontal(shares.field(name) for name in names if name in fleet.features_of(signal)).alias(signal)
        for signal in fleet.names
    )
    return pl.when(pl.col("contributions").is_not_null()).then(sums)


def life_message(fleet: Fleet, inputs: tuple[str, ...], history: timedelta, rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the messages of the topic `maintenance-predictions`.

    The lower end of the interval decides the recommended action, by the limits of the machine's type. Hours are those
    of the clock; `remaining_life` and its interval are in the type's own unit. Only critical predictions have
    contributions, in hours by signal. `warning` is why the prediction may be wrong (`learning_shortage`).
    """
    cap, unit_hours = limit("life_cap_hours"), limit("life_unit_hours")
    share = pl.col("output").list.get(0)
    hours, low, high = (end.clip(0, 1) * cap for end in (share, pl.coalesce("low", share), pl.coalesce("high", share)))
    action, priority = pl.lit(NO_ACTION[0]), pl.lit(NO_ACTION[1])
    for name, limit_action, limit_priority in reversed(ACTIONS):
        is_below = low < limit(f"{name}_hours")
        action = pl.when(is_below).then(pl.lit(limit_action)).otherwise(action)
        priority = pl.when(is_below).then(pl.lit(limit_priority)).otherwise(priority)
    contributions = sum_by_signal(fleet, inputs)
    return rows.select(
        "timestamp",
        "machine_id",
        predicted_rul_hours=hours.round(3),
        confidence_interval=pl.concat_list(low.round(3), high.round(3)),
        remaining_life=(hours / unit_hours).round(3),
        remaining_life_interval=pl.concat_list((low / unit_hours).round(3), (high / unit_hours).round(3)),
        life_unit=limit("life_unit"),
        stop_below_hours=limit("stop_below_hours"),
        recommended_action=action,
        priority=priority,
        warning=learning_shortage(history),
        feature_contributions=pl.when(contributions.is_not_null()).then(
            pl.struct((contributions.struct.field(name) * cap).alias(name) for name in fleet.names)
        ),
    )


def is_critical() -> pl.Expr:
    """Returns the condition of the answers for which a machine should be stopped."""
    low = pl.coalesce("low", pl.col("output").list.get(0))
    return low * limit("life_cap_hours") < limit("stop_below_hours")


def life_inputs(fleet: Fleet) -> tuple[str, ...]:
    """Returns the features that the model of a fleet's remaining life uses."""
    left_out = [window.name for window in fleet.windows if not window.is_for_life]
    features = (
        name
        for signal in fleet.names
        for name in fleet.features_of(signal)
        if name not in [f"{signal}_{window}" for window in left_out]
    )
    return (*features, *(("age",) if fleet.counter else ()))


def life_model(
    fleet: Fleet,
    name: str,
    features: str,
    log: str,
    topic: str,
    history: timedelta = Model.history,
    most_rows: int = Model.most_rows,
) -> Model:
    """Returns the model of a fleet's remaining life, and of the messages on it.

    `features` is the name of the view that `features_table` declares. `log` is the table of the maintenance log, and
    `topic` that of the messages. `history` and `most_rows` are those of the model, which learns from a row a minute of
    each machine.
    """
    inputs = life_inputs(fleet)
    return Model(
        name=name,
        description="The share of the longest predicted life that a machine has left before it fails.",
        features=features,
        where=f"first_of_minute AND {fleet.names[-1]}_{fleet.windows[0].name} IS NOT NULL",
        inputs=inputs,
        label=TimeToEvent(
            truth=log,
            where="kind = 'failure'",
            time="timestamp",
            cap=timedelta(hours=DEFAULT_LIMITS.cap),
            cap_hours="life_cap_hours",
        ),
        estimator=trees_and_networks,
        space=blend_space((7, 31), (20, 200)),
        defaults={**defaults(31, 40), "alpha": 0.1, "epochs": 30},
        groups=("machine_id",),
        history=history,
        most_rows=most_rows,
        first_rows=most_rows // 2,  # the networks take most of the time in which a new city gets its models
        stream=Stream(topic, partial(life_message, fleet, inputs, history), is_critical()),
    )
