"""The transforms of the equipment's feature and fault tables: functions of frames, on any engine."""

import narwhals as nw

from city.tables.model import Frame, RowFault
from city_assets.equipment.fleet import Fleet
from city_assets.equipment.limits import ACTIONS, DEFAULT_KIND, DEFAULT_LIMITS, LIMIT_COLUMNS, UNITS

BEFORE_FOUND = 12
"""The minutes before a finding that do not count as normal."""
_EDGES = ("minimum", "maximum")


def machine_features(fleet: Fleet, readings: Frame, ranges: Frame, machines: Frame, types: Frame) -> Frame:
    """Computes the features of a machine at each of its readings.

    These are the trailing means, the standard deviation and the trends of each signal, as a share of its normal range
    (0 is the minimum, 1 the maximum). They are null if nobody has given the normal range. The limits of the machine's
    type are beside them, in hours.
    """
    features = _with_shares(fleet, with_limits(readings, machines, types), ranges).with_columns(
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
    features = features.with_columns(
        (nw.col(f"{signal}_{newer}") - nw.col(f"{signal}_{older}")).alias(f"{signal}_{newer}_over_{older}")
        for signal in fleet.names
        for newer, older in fleet.trends
    )
    if fleet.counter:
        hours = nw.col(fleet.counter.name) * nw.col("life_unit_hours")
        features = features.with_columns(age=hours / nw.col("life_cap_hours"))
    before = _over_machine(nw.col("_minute").shift(1))
    return features.with_columns(first_of_minute=(nw.col("_minute") != before).fill_null(value=True))


def type_faults() -> tuple[RowFault, ...]:
    """Returns the reasons why a row of `machine_types` cannot be used, for `with_limits` and the check."""

    def is_positive(name: str) -> nw.Expr:
        return ((nw.col(name) > 0) & nw.col(name).is_finite()).fill_null(value=False)

    unit = nw.col("life_unit")
    return (
        RowFault("life_unit", f"must be one of {', '.join(UNITS)}", ~unit.is_in(UNITS).fill_null(value=False)),
        RowFault("life_cap", "must be positive", ~is_positive("life_cap")),
        RowFault(
            "hours_per_cycle",
            "must be positive, because life_unit is cycles",
            (unit == "cycles") & ~is_positive("hours_per_cycle"),
        ),
    )


def limit_faults() -> tuple[RowFault, ...]:
    """Returns the reasons why the limits of a row of `machine_types` contradict each other."""
    pairs = (("stop_below", "replace_below"), ("replace_below", "order_below"))
    return tuple(
        RowFault(lower, f"must be at most {upper}", (nw.col(lower) > nw.col(upper)).fill_null(value=False))
        for lower, upper in pairs
    )


def with_limits(readings: Frame, machines: Frame, types: Frame) -> Frame:
    """Adds the columns LIMIT_COLUMNS by the machine's kind: the limits in hours, and the unit of a life.

    A machine whose kind has no row in `types`, or that is not in `machines`, gets the row of DEFAULT_KIND, or without
    it DEFAULT_LIMITS. A row with one of `type_faults` is no row.
    """
    unit = nw.col("life_unit")
    hours = nw.when(unit == "h").then(nw.lit(1.0)).otherwise(nw.when(unit == "d").then(nw.lit(24.0)))
    usable = types.filter(*(~fault.is_wrong for fault in type_faults())).with_columns(
        life_unit_hours=nw.when(unit == "cycles").then(nw.col("hours_per_cycle")).otherwise(hours)
    )
    usable = usable.with_columns(
        life_cap_hours=nw.col("life_cap") * nw.col("life_unit_hours"),
        **{f"{name}_hours": nw.col(name) * nw.col("life_unit_hours") for name, _, _ in ACTIONS},
    ).select("kind", *LIMIT_COLUMNS)
    own = usable.rename({"kind": "_kind"} | {name: f"_own_{name}" for name in LIMIT_COLUMNS})
    default = usable.rename({"kind": "_default_kind"} | {name: f"_default_{name}" for name in LIMIT_COLUMNS})
    kinds = machines.select("machine_id", _kind=nw.col("kind"))
    typed = (
        readings.join(kinds, on="machine_id", how="left")
        .join(own, on="_kind", how="left")
        .with_columns(_default_kind=nw.lit(DEFAULT_KIND))
        .join(default, on="_default_kind", how="left")
    )
    return typed.with_columns(
        nw.coalesce(
            nw.col(f"_own_{column}"), nw.col(f"_default_{column}"), nw.lit(getattr(DEFAULT_LIMITS, name))
        ).alias(column)
        for column, name in LIMIT_COLUMNS.items()
    )


def _with_shares(fleet: Fleet, readings: Frame, ranges: Frame) -> Frame:
    """Adds `_<signal>`: each signal as a share of its normal range, which is null where the range has no width.

    The range is that of the reading's operating condition. A machine may have one for all conditions instead.
    """
    if fleet.settings:
        steps = [(nw.col(setting.signal) / setting.step).round(0).cast(nw.Int64) for setting in fleet.settings]
        readings = readings.with_columns(
            _condition=nw.concat_str([step.cast(nw.String) for step in steps], separator="_")
        )
        by_condition = ranges.filter(~nw.col("condition").is_null()).rename({"condition": "_condition"})
        readings = readings.join(
            _edges(fleet, by_condition, ["machine_id", "_condition"], "own_"),
            on=["machine_id", "_condition"],
            how="left",
        )
        ranges = ranges.filter(nw.col("condition").is_null())
    readings = readings.join(_edges(fleet, ranges, ["machine_id"], ""), on="machine_id", how="left")
    if fleet.settings:
        readings = readings.with_columns(
            nw.coalesce(nw.col(f"_own_{edge}_{signal}"), nw.col(f"_{edge}_{signal}")).alias(f"_{edge}_{signal}")
            for signal in fleet.names
            for edge in _EDGES
        )
    return readings.with_columns(
        **{
            f"_{signal}": nw.when(nw.col(f"_maximum_{signal}") > nw.col(f"_minimum_{signal}")).then(
                (nw.col(signal) - nw.col(f"_minimum_{signal}"))
                / (nw.col(f"_maximum_{signal}") - nw.col(f"_minimum_{signal}"))
            )
            for signal in fleet.names
        }
    )


def _edges(fleet: Fleet, ranges: Frame, by: list[str], prefix: str) -> Frame:
    """Returns a row for each group of ranges, with the columns `_<prefix>minimum_<signal>` and of the maximum."""
    return ranges.group_by(by).agg(
        **{
            f"_{prefix}{edge}_{signal}": nw.when(nw.col("signal") == signal).then(nw.col(f"normal_{edge}")).max()
            for signal in fleet.names
            for edge in _EDGES
        }
    )


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
