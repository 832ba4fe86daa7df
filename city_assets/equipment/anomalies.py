"""The anomalies of machines: the model that finds them, and its messages."""

from functools import partial

import polars as pl

from city.models.anomaly import NormalRegion
from city.models.estimator import Estimator
from city.models.labels import NormalState
from city.models.model import Model, Parameters, Stream
from city.models.wandering import WanderingRegion
from city_assets.equipment.fleet import Fleet
from city_assets.equipment.life import sum_by_signal

_LEAST_WINDOWS = 20
"""The windows of normal readings that a model of signals that wander is fitted on at least: five blocks."""


def anomaly_message(fleet: Fleet, inputs: tuple[str, ...], rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the messages of the topic `anomaly-detected`. The contributions are shares by signal that sum to one."""
    return rows.select(
        "timestamp",
        "machine_id",
        anomaly_score=pl.col("output").list.get(0),
        threshold=pl.lit(1.0),
        is_anomaly=pl.col("prediction") == "anomaly",
        confidence="confidence",
        feature_contributions=sum_by_signal(fleet, inputs),
    )


def anomaly_model(
    fleet: Fleet,
    name: str,
    features: str,
    faults: str,
    topic: str,
    *,
    context: tuple[str, ...] = (),
    wanders: bool = False,
) -> Model:
    """Returns the model of a fleet's anomalies, and of the messages on them.

    `features` is the name of the view that `features_table` declares, `faults` the table of the periods that are not
    normal, and `topic` that of the messages. The inputs are the signals over the fleet's shortest window, and the
    features of `context`, on which signals depend later.

    With `wanders`, the model is for one machine that is watched from its start on, by the few readings that it has had:
    signals may leave the range in which they were (see WanderingRegion). The spreads are inputs then, too, and the
    fleet's `spread_over` should be the shortest window.
    """
    shortest = min(fleet.windows, key=lambda window: window.readings)
    related = (*(f"{signal}_{shortest.name}" for signal in fleet.names), *context)
    inputs = (*related, *(f"{signal}_spread" for signal in fleet.names)) if wanders else related

    def wandering_region(parameters: Parameters) -> Estimator:
        return WanderingRegion(window=shortest.readings, related=len(related), **parameters)

    def normal_region(parameters: Parameters) -> Estimator:
        return NormalRegion(**parameters)

    return Model(
        name=name,
        description="How far a machine's readings are from normal, and which signals they are that are.",
        features=features,
        # A signal is null for a machine whose normal ranges nobody has given. Such a machine cannot be judged.
        where=f"{fleet.names[-1]}_{shortest.name} IS NOT NULL",
        inputs=inputs,
        label=NormalState(truth=faults, where="true", begin="begin", end="end"),
        estimator=wandering_region if wanders else normal_region,
        # All components are used: the signals are few, and a fault shows most where the variance is least.
        defaults={} if wanders else {"explained": 0.9999, "quantile": 0.995, "threshold": 1.1},
        stream=Stream(topic, partial(anomaly_message, fleet, inputs)),
        least_rows=_LEAST_WINDOWS * shortest.readings if wanders else 2_000,
    )
