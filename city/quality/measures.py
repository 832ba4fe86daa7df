"""Measures the quality of a day of a contract's data, as one row of numbers. Pure: frames in, a frame out.

A day may have many more rows than fit into memory, so it is read an hour at a time. Each quarter of an hour is reduced
to a few numbers per device. The day's measures are computed from these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from city.contracts.model import Contract
from city.contracts.schema import is_history
from city.tables.calendar import SLOT_SECONDS

SLOW = timedelta(seconds=60)  # from the event to Kafka
_RANGE = "outside "  # is in the reasons of values that are out of range: see contracts.validity
_FEWEST = 12  # rows that a key needs to be judged
_DRIFT_SPREADS = 4.0
_NOISE = 1.4826 / 2**0.5  # of normal noise, its standard deviation over the median absolute difference of neighbours
_GAP_STEP = 1.02  # gaps are rounded to within one per cent
_COUNTS = ("slot", "rows", "unique", "slow", "out_of_order", "unknown", "volume")
_HISTORY = "_is_history"
_IS_HISTORY = is_history(pl.col("_offset"))
"""The condition on rows of the history of a new city: see `city.streaming.history`."""
DIMENSIONS = {
    "validity": ("malformed_share", "out_of_range_share"),
    "uniqueness": ("duplicate_share",),
    "timeliness": ("slow_share", "out_of_order_share"),
    "completeness": ("missing_share",),
    "reference": ("unknown_share",),
    "plausibility": ("stuck_share", "drifting_share"),
}


@dataclass(frozen=True)
class Summary:
    """A summary of a day's bronze rows. Its size does not grow with their number.

    `sums` are counts, by name. `keys` is the number of keys. `volume` (slot, rows) has a row for each slot of the
    calendar that has events which count (see `summarise`). The other frames are empty unless the contract is one of
    measuring devices. `kinds` (slot, kind, readings, total) has a row for each slot and kind. `devices` (key, slot,
    readings, low, high, noise) and `middles` (key, kind, slot, middle) have a row for each slot and device. `gaps`
    (key, _is_history, step, gaps) has a row for each device and step. A step is a gap between readings, to within one
    per cent.
    """

    sums: dict[str, int]
    keys: int
    volume: pl.DataFrame
    kinds: pl.DataFrame
    devices: pl.DataFrame
    middles: pl.DataFrame
    gaps: pl.DataFrame


def summarise(
    contract: Contract, bronze: pl.LazyFrame, announced: dict[str, pl.Series], has_sampled_history: bool = False
) -> Summary:
    """Reads and summarises a day's bronze rows.

    `announced` has, for each field that refers to another contract, the values that the other contract announced. With
    `has_sampled_history`, rows of the history are left out of the volume, because live rows are more frequent.
    """
    key, quantities = contract.key, contract.quantities
    columns = [key, contract.event_time, "_offset", "_arrived", "_watermark", *(r.field for r in contract.references)]
    columns += [quantities.by, quantities.value] if quantities else []
    sums, keys, parts = [], [], []
    gaps, last = pl.DataFrame(), None
    volume = (~_IS_HISTORY).sum() if has_sampled_history else pl.len()
    for begin, rows in _read_hours(bronze.select(*dict.fromkeys(columns)), contract.event_time):
        rows = rows.with_columns(slot=pl.col(contract.event_time).dt.epoch("s") // SLOT_SECONDS)
        unique = rows.unique([key, contract.event_time])
        sums.append(_count_rows(contract, rows, unique, announced, volume))
        keys.append(unique[key].unique())
        if quantities:
            part, new_gaps, last = _summarise_readings(contract, begin, unique, last)
            parts.append(part)
            gaps = pl.concat([gaps, new_gaps], how="diagonal").group_by(key, _HISTORY, "step").agg(pl.col("gaps").sum())
    counts = pl.concat([pl.DataFrame(schema=dict.fromkeys(_COUNTS, pl.Int64)), *sums], how="vertical_relaxed")
    kinds, devices, middles = (
        (pl.concat(frames) for frames in zip(*parts, strict=True)) if parts else [pl.DataFrame()] * 3
    )
    return Summary(
        sums=counts.select(pl.exclude("slot", "volume").sum()).row(0, named=True),
        keys=pl.concat(keys).n_unique() if keys else 0,
        volume=counts.filter(pl.col("volume") > 0).select("slot", rows="volume"),
        kinds=kinds,
        devices=devices,
        middles=middles,
        gaps=gaps,
    )


def measures(contract: Contract, day: Summary, quarantine: pl.LazyFrame) -> pl.DataFrame:
    """Computes the measures of a day from the summary of its bronze rows and its quarantine. Returns one row.

    Shares are shares of the messages (validity), of the rows (uniqueness, timeliness, reference), of the readings due
    (completeness) or of the devices (plausibility). A measure that does not apply to the contract is 0.
    """
    rejected, out_of_range = quarantine.select(pl.len(), _only_out_of_range(pl.col("reasons")).sum()).collect().row(0)
    rows, divisor = day.sums["rows"], max(1, day.sums["rows"])
    stuck, drifting = _count_implausible(contract, day)
    missing, due = _count_missing(contract, day)
    return pl.DataFrame(
        {
            "rows": rows,
            "quarantined": rejected,
            "keys": day.keys,
            "malformed_share": (rejected - out_of_range) / max(1, rows + rejected),
            "out_of_range_share": out_of_range / max(1, rows + rejected),
            "duplicate_share": (rows - day.sums["unique"]) / divisor,
            "slow_share": day.sums["slow"] / divisor,
            "out_of_order_share": day.sums["out_of_order"] / divisor,
            "missing_share": missing / max(1, due),
            "unknown_share": day.sums["unknown"] / divisor,
            "stuck_share": stuck / max(1, day.keys),
            "drifting_share": drifting / max(1, day.keys),
        },
        schema_overrides={name: pl.Float64 for names in DIMENSIONS.values() for name in names},
    )


def scores(day_measures: pl.DataFrame) -> pl.DataFrame:
    """Adds to measures a score from 0 to 1 for each dimension, and `score`, the geometric mean of the scores.

    The mean is geometric so that one bad dimension shows.
    """
    parts = {dimension: (1 - pl.sum_horizontal(names)).clip(0, 1).round(6) for dimension, names in DIMENSIONS.items()}
    overall = pl.concat_list(list(parts)).list.eval(pl.element().clip(1e-9).log()).list.mean().exp().round(6)
    return day_measures.with_columns(**parts).with_columns(score=overall)


def _only_out_of_range(reasons: pl.Expr) -> pl.Expr:
    """Whether every reason is a value out of range, so that the message itself is well-formed."""
    return reasons.list.eval(pl.element().str.contains(_RANGE, literal=True)).list.all()


def _read_hours(bronze: pl.LazyFrame, event_time: str) -> Iterator[tuple[datetime, pl.DataFrame]]:
    """Yields the start and the rows of each hour that has rows, in order."""
    time = pl.col(event_time)
    hours = bronze.select(time.dt.truncate("1h").unique().sort()).collect(engine="streaming").to_series()
    for hour in hours:
        yield hour, bronze.filter(time >= hour, time < hour + timedelta(hours=1)).collect()


def _count_rows(
    contract: Contract,
    rows: pl.DataFrame,
    unique: pl.DataFrame,
    announced: dict[str, pl.Series],
    volume: pl.Expr,
) -> pl.DataFrame:
    """Counts the rows of each slot, in the form of `_COUNTS`, in order."""
    time = pl.col(contract.event_time)
    unannounced = [
        ~pl.col(r.field).is_in(announced[r.field].implode()) for r in contract.references if r.field in announced
    ]
    counted = rows.group_by("slot").agg(
        rows=pl.len(),
        slow=(pl.col("_arrived") - time > SLOW).sum(),
        out_of_order=(time < pl.col("_watermark")).sum(),
        unknown=pl.sum_horizontal([pl.lit(0), *(condition.sum() for condition in unannounced)]),
        volume=volume,
    )
    return counted.join(unique.group_by("slot").agg(unique=pl.len()), on="slot").sort("slot").select(_COUNTS)


def _summarise_readings(
    contract: Contract, begin: datetime, unique: pl.DataFrame, last: pl.DataFrame | None
) -> tuple[tuple[pl.DataFrame, ...], pl.DataFrame, pl.DataFrame]:
    """Summarises the readings of an hour, by its slots.

    `last` has the newest reading of each device before the hour; the gap and the change of a device's first reading in
    the hour are measured from it. The history's readings and the live ones have intervals of their own. Returns the
    kinds, devices and middles of the slots, then the hour's gaps, then the newest reading of each device for the next
    hour.
    """
    assert contract.quantities
    key, by, value = contract.key, contract.quantities.by, pl.col(contract.quantities.value)
    time, slot = pl.col(contract.event_time), "slot"
    readings = unique.select(slot, key, by, contract.event_time, contract.quantities.value, _IS_HISTORY.alias(_HISTORY))
    joined = pl.concat([readings] if last is None else [last, readings]).sort(contract.event_time)
    steps = joined.with_columns(
        _gap=time.diff().over(key, _HISTORY).dt.total_milliseconds(), _change=value.diff().abs().over(key, _HISTORY)
    ).filter(time >= begin)
    gap = pl.col("_gap").log(_GAP_STEP).round()
    parts = (
        steps.group_by(slot, kind=by).agg(readings=pl.len(), total=value.sum()),
        steps.group_by(key, slot).agg(
            readings=pl.len(), low=value.min(), high=value.max(), noise=pl.col("_change").median() * _NOISE
        ),
        steps.group_by(key, by, slot).agg(middle=value.median()),
    )
    gaps = steps.filter(pl.col("_gap") > 0).group_by(key, _HISTORY, step=gap).len("gaps")
    return parts, gaps, joined.unique([key, _HISTORY], keep="last")


def _count_missing(contract: Contract, day: Summary) -> tuple[int, int]:
    """Returns the number of missing readings and of readings due, by each device's own usual interval.

    A device has one interval in the history and another live, so a day with both has no missing readings for that.
    """
    if day.gaps.is_empty():
        return 0, 0
    count, device = pl.col("gaps"), [contract.key, _HISTORY]
    counted = (
        day.gaps.group_by(*device, "step")
        .agg(count.sum())
        .sort("step")
        .with_columns(
            usual=pl.col("step").filter(count.cum_sum() * 2 >= count.sum()).first().over(device),
            readings=count.sum().over(device) + 1,
        )
        .filter(pl.col("readings") >= _FEWEST)
        .select(count, missing=((_GAP_STEP ** (pl.col("step") - pl.col("usual"))).round() - 1).clip(lower_bound=0))
    )
    return int((counted["missing"] * counted["gaps"]).sum()), int(((counted["missing"] + 1) * counted["gaps"]).sum())


def _count_implausible(contract: Contract, day: Summary) -> tuple[int, int]:
    """Returns the number of devices whose value never changed, and of those that drifted away from their kind.

    A device that repeats its quantity's `idle` value is well. Kinds that are idle for half of the time have no drift,
    because their noise is not known.
    """
    if contract.quantities is None or day.devices.is_empty():
        return 0, 0
    key, by = contract.key, contract.quantities.by
    devices = (
        day.devices.group_by(key)
        .agg(pl.col("readings").sum(), pl.col("low").min(), pl.col("high").max(), pl.col("noise").median())
        .filter(pl.col("readings") >= _FEWEST)
    )
    idle = {quantity.name: quantity.idle for quantity in contract.quantities.choices if quantity.idle is not None}
    resting = day.middles.filter(pl.col(by).is_in(list(idle))).select(key, by).unique()
    resting = resting.with_columns(_idle=pl.col(by).replace_strict(idle, return_dtype=pl.Float64)).drop(by)
    devices = devices.join(resting, on=key, how="left")
    stuck = devices.filter(pl.col("low") == pl.col("high"), pl.col("low").ne_missing(pl.col("_idle")))
    moving = day.middles.join(devices.filter(pl.col("low") < pl.col("high")), on=key)
    # A device is compared with the middle of its kind at the same time: so the day's own rhythm is not a drift.
    quarter = pl.max_horizontal(1, pl.len() // 4)
    ends = (
        moving.with_columns(apart=pl.col("middle") - pl.col("middle").median().over(by, "slot"))
        .sort("slot")
        .group_by(key, by)
        .agg(
            first=pl.col("apart").head(quarter).median(),
            last=pl.col("apart").tail(quarter).median(),
            noise=pl.col("noise").first(),
        )
        .with_columns(noise=pl.col("noise").median().over(by))
    )
    moved = (pl.col("last") - pl.col("first")).abs()
    drifting = ends.filter(
        moved > _DRIFT_SPREADS * pl.col("noise"), (pl.col("noise") > 0) | ~pl.col(by).is_in(list(idle))
    )
    return stuck.height, drifting.height
