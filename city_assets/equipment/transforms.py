"""The transforms of the equipment's feature and fault tables: functions of frames, on any engine."""

import narwhals as nw

from city.tables.model import Frame
from city_assets.equipment.fleet import Fleet

BEFORE_FOUND = 12
"""The minutes before a finding that do not count as normal."""


def machine_features(fleet: Fleet, readings: Frame, ranges: Frame) -> Frame:
    """Computes the features of a machine at each of its readings.

    These are the trailing means and the standard deviation of each signal, as a share of its normal range (0 is the
    minimum, 1 the maximum). They are null if nobody has given the normal range.
    """
    normal = ranges.group_by("machine_id").agg(
        **{
            f"_{edge}_{signal}": nw.when(nw.col("signal") == signal).then(nw.col(f"normal_{edge}")).max()
            for signal in fleet.names
            for edge in ("minimum", "maximum")
        }
    )
    features = readings.join(normal, on="machine_id", how="left").with_columns(
        **{
            f"_{signal}": (nw.col(signal) - nw.col(f"_minimum_{signal}"))
            / (nw.col(f"_maximum_{signal}") - nw.col(f"_minimum_{signal}"))
            for signal in fleet.names
        }
    )
    features = features.with_columns(
        **{
            f"{signal}_{window.name}": _over_machine(nw.col(f"_{signal}").rolling_mean(window.readings, min_samples=1))
            for signal in fleet.names
            for window in fleet.windows
        },
        **{
            f"{signal}_spread": _over_machine(
                nw.col(f"_{signal}").rolling_std(fleet.window(fleet.spread_over).readings, min_samples=2)
            )
            for signal in fleet.names
        },
        _minute=nw.col("_timestamp_seconds") // 60,
    )
    before = _over_machine(nw.col("_minute").shift(1))
    return features.with_columns(first_of_minute=(nw.col("_minute") != before).fill_null(value=True))


def machine_faults(log: Frame, events: Frame) -> Frame:
    """Returns the periods in which a machine was faulty.

    These are the BEFORE_FOUND minutes before each failure and each inspection with a finding, and each anomaly event
    that people have confirmed.
    """
    findings = log.filter(
        ((nw.col("kind") == "inspection") & ~nw.col("cause").is_null()) | (nw.col("kind") == "failure")
    )
    logged = findings.select(
        "machine_id",
        nw.col("timestamp").dt.offset_by(f"-{BEFORE_FOUND}m").alias("begin"),
        nw.col("timestamp").alias("end"),
        "cause",
    )
    confirmed = events.filter(nw.col("confirmed")).select(
        "machine_id", "begin", "end", nw.col("root_cause").alias("cause")
    )
    return nw.concat([logged, confirmed]).unique(["machine_id", "begin"])


def _over_machine(expression: nw.Expr) -> nw.Expr:
    return expression.over("machine_id", order_by="timestamp")
