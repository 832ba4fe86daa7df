"""What a day of a contract's data is like, as one row of numbers. Pure: frames in, a frame out."""

from datetime import timedelta

import polars as pl

from city.contracts.model import Contract

SLOW = timedelta(seconds=60)  # from the event to Kafka
_RANGE = "outside "  # in the reasons of values that are out of range: see contracts.validity
_FEWEST = 12  # readings of a sensor before it is judged
_DRIFT_SPREADS = 4.0
DIMENSIONS = {
    "validity": ("malformed_share", "out_of_range_share"),
    "uniqueness": ("duplicate_share",),
    "timeliness": ("slow_share", "out_of_order_share"),
    "completeness": ("missing_share",),
    "reference": ("unknown_share",),
    "plausibility": ("stuck_share", "drifting_share"),
}


def measures(
    contract: Contract, bronze: pl.DataFrame, quarantine: pl.DataFrame, known: dict[str, pl.Series]
) -> pl.DataFrame:
    """One row about a day's bronze rows and quarantine; `known` has, by field that refers, the values announced.

    Shares are of the messages (validity), of the rows (uniqueness, timeliness, reference), of the readings due
    (completeness) or of the sensors (plausibility). What a contract cannot be judged by is 0.
    """
    rows, rejected = bronze.height, quarantine.height
    ranged = quarantine.select(_only_ranges(pl.col("reasons")).sum()).item() if rejected else 0
    by = [contract.key, contract.event_time]
    time, of = pl.col(contract.event_time), max(1, rows)
    unique = bronze.unique(by)
    timed = bronze.select(
        slow=(pl.col("_arrived") - time > SLOW).sum(), out_of_order=(time < pl.col("_watermark")).sum()
    ).row(0)
    unknown = sum(
        bronze.select((~pl.col(r.field).is_in(known[r.field].implode())).sum()).item()
        for r in contract.references
        if r.field in known
    )
    stuck, drifting = _implausible(contract, unique)
    sensors = max(1, bronze[contract.key].n_unique())
    missing, due = _missing(contract, unique)
    return pl.DataFrame(
        {
            "rows": rows,
            "quarantined": rejected,
            "keys": bronze[contract.key].n_unique(),
            "malformed_share": (rejected - ranged) / max(1, rows + rejected),
            "out_of_range_share": ranged / max(1, rows + rejected),
            "duplicate_share": (rows - unique.height) / of,
            "slow_share": timed[0] / of,
            "out_of_order_share": timed[1] / of,
            "missing_share": missing / max(1, due),
            "unknown_share": unknown / of,
            "stuck_share": stuck / sensors,
            "drifting_share": drifting / sensors,
        },
        schema_overrides={name: pl.Float64 for names in DIMENSIONS.values() for name in names},
    )


def scores(found: pl.DataFrame) -> pl.DataFrame:
    """Of measures, a score from 0 to 1 for each dimension, and `score`, their geometric mean: one that is bad shows."""
    parts = {dimension: (1 - pl.sum_horizontal(names)).clip(0, 1).round(6) for dimension, names in DIMENSIONS.items()}
    overall = pl.concat_list(list(parts)).list.eval(pl.element().clip(1e-9).log()).list.mean().exp().round(6)
    return found.with_columns(**parts).with_columns(score=overall)


def _only_ranges(reasons: pl.Expr) -> pl.Expr:
    """Whether every reason is of a value out of range: the message itself was in order."""
    return reasons.list.eval(pl.element().str.contains(_RANGE, literal=True)).list.all()


def _missing(contract: Contract, rows: pl.DataFrame) -> tuple[int, int]:
    """How many readings are missing, and how many were due, by each key's own usual interval. Only for contracts of
    measuring devices, which report at intervals."""
    if contract.quantities is None or rows.is_empty():
        return 0, 0
    gap = pl.col(contract.event_time).diff().dt.total_milliseconds()
    found = (
        rows.sort(contract.event_time)
        .group_by(contract.key)
        .agg(usual=gap.median(), gaps=gap.drop_nulls(), count=pl.len())
        .filter(pl.col("count") >= _FEWEST, pl.col("usual") > 0)
        .explode("gaps")
        .select(((pl.col("gaps") / pl.col("usual")).round() - 1).clip(lower_bound=0).alias("missing"))
    )
    return int(found["missing"].sum() or 0), int((found["missing"] + 1).sum() or 0)


def _implausible(contract: Contract, rows: pl.DataFrame) -> tuple[int, int]:
    """How many sensors did not move at all, and how many moved away from those of their kind."""
    if contract.quantities is None or rows.is_empty():
        return 0, 0
    key, by, value = contract.key, contract.quantities.by, contract.quantities.value
    hour = pl.col(contract.event_time).dt.truncate("1h")
    by_sensor = rows.group_by(key).agg(spread=pl.col(value).std(), count=pl.len()).filter(pl.col("count") >= _FEWEST)
    stuck = by_sensor.filter(pl.col("spread") == 0)
    moving = rows.join(by_sensor.filter(pl.col("spread") > 0), on=key, how="semi")
    # Against the median of its kind in the same hour, so that the day's own rhythm is not taken for a drift.
    apart = moving.with_columns(hour=hour).with_columns(
        apart=pl.col(value) - pl.col(value).median().over(by, "hour"),
        noise=(pl.col(value).diff().abs().median() * 1.4826 / 2**0.5).over(key, order_by=contract.event_time),
    )
    ends = (
        apart.sort(contract.event_time)
        .group_by(key, by)
        .agg(
            first=pl.col("apart").head(pl.len() // 4).median(),
            last=pl.col("apart").tail(pl.len() // 4).median(),
            noise=pl.col("noise").first(),
        )
        .with_columns(noise=pl.col("noise").median().over(by))
    )
    drifting = ends.filter((pl.col("last") - pl.col("first")).abs() > _DRIFT_SPREADS * pl.col("noise"))
    return stuck.height, drifting.height
