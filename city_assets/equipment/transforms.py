"""The equipment's feature table as a function of frames, on any engine."""

import narwhals as nw

from city.tables.model import Frame
from city_assets.equipment.contract import SIGNALS

NOW, RECENT, LONG = 3, 12, 120
"""Readings that a trailing mean is over: a machine reports every five seconds, so these are 15 s, 1 min and 10 min."""
BEFORE_FOUND = 12
"""Minutes before something is found wrong that are not taken as normal."""
HORIZONS = {"now": NOW, "recent": RECENT, "long": LONG}


def machine_features(readings: Frame, ranges: Frame) -> Frame:
    """What is known of a machine at each of its readings: trailing means of each signal, as a share of its normal
    range (0 its least, 1 its most), and how unsteady it is.

    Null where nobody has said what is normal.
    """
    normal = ranges.group_by("machine_id").agg(
        **{
            f"_{edge}_{signal}": nw.when(nw.col("signal") == signal).then(nw.col(f"normal_{edge}")).max()
            for signal in SIGNALS
            for edge in ("minimum", "maximum")
        }
    )
    found = readings.join(normal, on="machine_id", how="left").with_columns(
        **{
            f"_{signal}": (nw.col(signal) - nw.col(f"_minimum_{signal}"))
            / (nw.col(f"_maximum_{signal}") - nw.col(f"_minimum_{signal}"))
            for signal in SIGNALS
        }
    )
    found = found.with_columns(
        **{
            f"{signal}_{name}": nw.col(f"_{signal}")
            .rolling_mean(rows, min_samples=1)
            .over("machine_id", order_by="timestamp")
            for signal in SIGNALS
            for name, rows in HORIZONS.items()
        },
        **{
            f"{signal}_spread": nw.col(f"_{signal}")
            .rolling_std(RECENT, min_samples=2)
            .over("machine_id", order_by="timestamp")
            for signal in SIGNALS
        },
        _minute=nw.col("_timestamp_seconds") // 60,
    )
    before = _of_machine(nw.col("_minute").shift(1))
    return found.with_columns(first_of_minute=(nw.col("_minute") != before).fill_null(value=True))


def machine_faults(log: Frame, events: Frame) -> Frame:
    """The stretches in which a machine was not as it should be: before each inspection that found something and each
    failure, and each anomaly event that people have confirmed."""
    found = log.filter(((nw.col("kind") == "inspection") & ~nw.col("cause").is_null()) | (nw.col("kind") == "failure"))
    logged = found.select(
        "machine_id",
        nw.col("timestamp").dt.offset_by(f"-{BEFORE_FOUND}m").alias("begin"),
        nw.col("timestamp").alias("end"),
        "cause",
    )
    confirmed = events.filter(nw.col("confirmed")).select(
        "machine_id", "begin", "end", nw.col("root_cause").alias("cause")
    )
    return nw.concat([logged, confirmed]).unique(["machine_id", "begin"])


def _of_machine(expression: nw.Expr) -> nw.Expr:
    return expression.over("machine_id", order_by="timestamp")
