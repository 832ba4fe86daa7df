"""NASA's turbofan engines (C-MAPSS) as a fleet of the platform: from the files to the rows of its feature table.

A cycle is a minute. All training engines begin at BEGIN, and all test engines at TEST_BEGIN, when the last training
engine has failed and the truth of all of its cycles is known. So the platform's split by time is the protocol's.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks._served import as_bronze
from city.contracts.schema import TIMESTAMP
from city.features.events import calendar_of
from city.features.plan import Plan
from city.sources.model import At, Source
from city.tables.schema import schema
from city.tables.silver import silver_table
from city_assets.equipment.contract import readings_contract
from city_assets.equipment.fleet import Fleet, Setting, Signal, Trailing
from city_assets.equipment.tables import MACHINE_SENSORS, MACHINE_TYPES, MACHINES, features_table

CYCLE = timedelta(minutes=1)
BEGIN, TEST_BEGIN = datetime(2026, 5, 4, tzinfo=UTC), datetime(2026, 5, 6, tzinfo=UTC)
CAP = 125
"""The longest remaining life that is predicted, in cycles. Before that, wear does not show (Heimes, 2008)."""
_LEAST_VALUES = 3
"""A signal with fewer values in the training files shows no wear, and has no normal range."""
_NORMAL = 2.0
"""A normal range is so many standard deviations of the training engines' readings to either side of their mean."""

_UNITS = {"altitude": "kft", "mach": "1", "throttle": "°"} | {
    **dict.fromkeys(("t2", "t24", "t30", "t50"), "°R"),
    **dict.fromkeys(("p2", "p15", "p30", "ps30"), "psia"),
    **dict.fromkeys(("nf", "nc", "nrf", "nrc", "nf_dmd"), "rpm"),
    **dict.fromkeys(("w31", "w32"), "lbm/s"),
    **{"epr": "1", "phi": "pps/psi", "bpr": "1", "farb": "1", "htbleed": "1", "pcnfr_dmd": "%"},
}
_SETTINGS = ("altitude", "mach", "throttle")
_SENSORS = (
    *("t2", "t24", "t30", "t50", "p2", "p15", "p30", "nf", "nc", "epr", "ps30", "phi", "nrf", "nrc", "bpr", "farb"),
    *("htbleed", "nf_dmd", "pcnfr_dmd", "w31", "w32"),
)
"""The columns of the files, in order (Saxena et al., 2008, table 2)."""
COLUMNS = ("engine", "cycle", *_SETTINGS, *_SENSORS)

TURBOFAN = Fleet(
    name="turbofan",
    signals=tuple(
        Signal(name=name, unit=_UNITS[name], minimum=-1, maximum=20_000, description="as the simulation gives it")
        for name in (*_SETTINGS, *_SENSORS)
    ),
    windows=(
        Trailing(name="newest", readings=5, description="five cycles"),
        Trailing(name="recent", readings=10, description="ten cycles"),
        Trailing(name="long", readings=30, description="thirty cycles"),
        Trailing(name="life", readings=600, description="600 cycles, which no engine reaches"),
    ),
    spread_over="long",
    trends=(("recent", "long"), ("recent", "life")),
    counter=Signal(name="cycle", unit="cycles", minimum=0, maximum=100_000, description="since the engine was new"),
    settings=(Setting(signal="altitude", step=1.0),),  # the six operating conditions have six altitudes
)
READINGS = readings_contract(TURBOFAN, name="turbofan_readings", topic="turbofan-readings", within=None)
FEATURES = features_table(TURBOFAN, name="turbofan_features", readings=f"silver/{READINGS.name}")
SOURCE = Source(
    name="cmapss",
    contract=READINGS,
    description="A row of C-MAPSS as a message: an engine's settings and sensors in one cycle.",
    documentation="https://data.nasa.gov/dataset/cmapss-jet-engine-simulated-data",
    sample=json.dumps({"at": BEGIN.timestamp(), **dict.fromkeys(COLUMNS, 1)}),
    kafka="cmapss",
    fields={
        "timestamp": At("at", form="epoch_s"),
        "machine_id": At("engine"),
        **{name: At(name) for name in COLUMNS if name != "engine"},
    },
)
TYPE = {"kind": TURBOFAN.name, "life_unit": "cycles", "life_cap": CAP, "hours_per_cycle": CYCLE / timedelta(hours=1)}
TYPE |= {"order_below": 0.7 * CAP, "replace_below": 0.3 * CAP, "stop_below": 0.1 * CAP}


@dataclass(frozen=True)
class Engines:
    """A subset of C-MAPSS as the platform has it."""

    features: pl.DataFrame
    """The rows of FEATURES, of training and test engines."""
    log: pl.DataFrame
    """The maintenance log with the failure of each engine: `machine_id`, `timestamp`, `kind`."""
    left: pl.DataFrame
    """The true remaining life of each test engine after its last cycle: `machine_id`, `cycles`."""
    conditions: int
    """The number of operating conditions of the training engines."""


def load_engines(folder: Path, subset: str, tell: Callable[[str], None]) -> Engines:
    """Loads a subset such as FD001 from its three files.

    Raises FileNotFoundError where a file is missing, and ValueError for rows that the contract rejects, or a test
    engine without a remaining life.
    """
    train, test = (_read(folder / f"{part}_{subset}.txt", part) for part in ("train", "test"))
    lives = np.loadtxt(_existing(folder / f"RUL_{subset}.txt"), ndmin=1)
    last = test.group_by("engine", maintain_order=True).agg(pl.col("cycle").max())
    if last.height != len(lives):
        raise ValueError(f"RUL_{subset}.txt has {len(lives)} lives, but test_{subset}.txt has {last.height} engines")
    left = last.with_columns(pl.Series("cycles", lives))
    ends = pl.concat(
        [
            train.group_by("engine").agg(pl.col("cycle").max(), pl.lit(BEGIN).alias("begin")),
            left.select("engine", pl.col("cycle") + pl.col("cycles"), pl.lit(TEST_BEGIN).alias("begin")),
        ]
    )
    # An engine fails in its last cycle: a moment after the reading, which has no cycle left.
    moment = pl.col("begin") + pl.duration(microseconds=pl.col("cycle") * (CYCLE // timedelta(microseconds=1)) + 1)
    log = ends.select(machine_id="engine", timestamp=moment.cast(TIMESTAMP), kind=pl.lit("failure"))
    ranges = normal_ranges(train, [*train["engine"].unique(), *last["engine"]])
    rows = pl.concat([train, test]).with_columns(pl.col("at").dt.epoch("s"))
    readings = as_bronze(SOURCE, rows.select("at", *COLUMNS).write_ndjson().encode().splitlines())
    tell(f"{subset}: {readings.height:,} readings of {log.height} engines")
    machines = log.select("machine_id", kind=pl.lit(TURBOFAN.name)).with_columns(
        pl.lit(None, kind).alias(name) for name, kind in schema(MACHINES).items() if name not in ("machine_id", "kind")
    )
    days = calendar_of(readings["timestamp"], "UTC", "US")
    silver = Plan(silver_table(READINGS)).run({READINGS.name: readings, "calendar": days})
    types = pl.DataFrame([TYPE], schema=schema(MACHINE_TYPES))
    features = Plan(FEATURES).run({"readings": silver, "ranges": ranges, "machines": machines, "types": types})
    conditions = ranges["condition"].n_unique()
    return Engines(
        features.sort("timestamp", "machine_id"),
        log.sort("timestamp"),
        left.select(machine_id="engine", cycles="cycles"),
        conditions,
    )


def normal_ranges(train: pl.DataFrame, engines: list[str]) -> pl.DataFrame:
    """Returns the rows of the reference table `machine_sensors`: the same ranges for each of the engines.

    They are those of the training engines in each operating condition. What is set has no normal range.
    """
    (setting,) = TURBOFAN.settings
    condition = (pl.col(setting.signal) / setting.step).round(0).cast(pl.Int64).cast(pl.String).alias("condition")
    readings = train.select(condition, *_SENSORS).unpivot(index="condition", variable_name="signal")
    varied = readings.group_by("condition", "signal").agg(
        pl.col("value").mean().alias("mean"),
        pl.col("value").std().alias("deviation"),
        pl.col("value").n_unique().alias("values"),
    )
    ranges = varied.filter(pl.col("values") >= _LEAST_VALUES).select(
        "condition",
        "signal",
        normal_minimum=pl.col("mean") - _NORMAL * pl.col("deviation"),
        normal_maximum=pl.col("mean") + _NORMAL * pl.col("deviation"),
    )
    rows = pl.DataFrame({"machine_id": engines}).join(ranges, how="cross")
    columns = schema(MACHINE_SENSORS)
    return rows.with_columns(
        pl.lit(None, kind).alias(name) for name, kind in columns.items() if name not in rows.columns
    ).select(*columns)


def _read(file: Path, part: str) -> pl.DataFrame:
    """Reads the rows of a file, with the engine's name and the time `at` of the cycle."""
    numbers = np.loadtxt(_existing(file), ndmin=2)
    if numbers.shape[1] != len(COLUMNS):
        raise ValueError(f"{file.name} has {numbers.shape[1]} columns; wanted {len(COLUMNS)}: {', '.join(COLUMNS)}")
    begin = BEGIN if part == "train" else TEST_BEGIN
    return pl.DataFrame(numbers, schema=COLUMNS).with_columns(
        engine=pl.format(f"{part}_{{}}", pl.col("engine").cast(pl.Int64)),
        at=(pl.lit(begin) + pl.duration(minutes=pl.col("cycle").cast(pl.Int64))).cast(TIMESTAMP),
    )


def _existing(file: Path) -> Path:
    if not file.exists():
        raise FileNotFoundError(f"{file.name} is not in {file.parent}; give the folder of its subset with --data")
    return file
