"""METR-LA's week as a city has it: a source, a contract, a lake, and the traffic's own tables of its detectors.

A detector has no coordinates here, so its id stands for the cell. The file has no times either: they are those of the
first week of DCRNN's data, which it is.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks._real import real
from city.arrays import Floats
from city.contracts import Contract, Distinct, Field
from city.lake.lakehouse import Lakehouse, lakehouse
from city.lake.reference import update
from city.settings import Settings
from city.sources.mapping import map_messages
from city.sources.model import At, Source
from city.streaming.history import append_day
from city.tables.model import DAY
from city.tables.model import Source as TableSource
from city.tables.windows import window_table
from city_assets.traffic.cell_features import cell_features
from city_assets.traffic.cell_links import pair_changes
from city_assets.traffic.cell_tables import (
    LEADERS,
    PAIR_CHANGES,
    ROAD_LINKS,
    SPEEDS_HOURLY,
    TRAFFIC_FEATURES,
    USUAL_SPEEDS,
)
from city_assets.traffic.contract import CELL_WINDOW

BEGIN = datetime(2012, 3, 1)
EVERY = timedelta(minutes=5)
ZONE = "America/Los_Angeles"

_, *_OTHER_AGGREGATES = CELL_WINDOW.aggregates
WINDOW = replace(
    CELL_WINDOW,
    name="detector_windows",
    every=EVERY,
    aggregates=(Distinct("vehicle_count", "cell"), *_OTHER_AGGREGATES),
    topic=None,
    description="The speed (km/h) that a detector reported.",
)
DETECTOR_SPEEDS = Contract(
    name="detector_speeds",
    topic="detector_speeds",
    version=1,
    description="The mean speed of the traffic over a fixed detector.",
    key="cell",
    event_time="timestamp",
    fields=(
        Field(name="cell", kind="string", description="the detector, which stands for a cell", pattern="[0-9]{1,12}"),
        Field(name="timestamp", kind="timestamp", description="the beginning of the five minutes"),
        Field(name="speed", kind="float", unit="km/h", minimum=0, maximum=200, description="mean speed"),
    ),
    windows=(WINDOW,),
)
LOOP_DETECTORS = Source(
    name="loop_detectors",
    contract=DETECTOR_SPEEDS,
    description="The loop detectors of Los Angeles' freeways, all of them in one message.",
    documentation="https://github.com/lehaifeng/T-GCN",
    sample='{"at": "2012-03-01T00:00:00", "detectors": [{"id": "773869", "mph": 64.375}]}',
    items="detectors",
    fields={
        "cell": At("id"),
        "timestamp": At("^.at", zone=ZONE),
        "speed": At("mph", unit="mph"),
    },
)

WINDOWS = window_table(DETECTOR_SPEEDS, WINDOW)
HOURLY = replace(
    SPEEDS_HOURLY,
    name="detector_speeds_hourly",
    sources={**SPEEDS_HOURLY.sources, "windows": TableSource(table=WINDOWS.id)},
)
USUAL = replace(
    USUAL_SPEEDS,
    name="detector_usual_speeds",
    sources={"hours": replace(USUAL_SPEEDS.sources["hours"], table=HOURLY.id)},
)
PAIRS = replace(
    PAIR_CHANGES,
    name="detector_pair_changes",
    sources={**PAIR_CHANGES.sources, "windows": TableSource(table=WINDOWS.id, days_before=1)},
    transform=pair_changes(EVERY),
)
LEADING = replace(
    LEADERS, name="detector_leaders", sources={"pairs": replace(LEADERS.sources["pairs"], table=PAIRS.id)}
)
FEATURES = replace(
    TRAFFIC_FEATURES,
    name="detector_features",
    sources={
        **TRAFFIC_FEATURES.sources,
        "windows": TableSource(table=WINDOWS.id, days_before=1),
        "leaders": replace(TRAFFIC_FEATURES.sources["leaders"], table=LEADING.id),
        "usual": replace(TRAFFIC_FEATURES.sources["usual"], table=USUAL.id),
    },
    transform=cell_features(EVERY),
)
"""The features of a cell's windows, of the traffic's own transform, for windows of five minutes."""


def read_speeds() -> tuple[list[str], Floats]:
    """Reads the detectors' names (n), and their speeds (t, n) in mph."""
    frame = pl.read_csv(real("metr_la/los_speed.csv"), infer_schema_length=None).cast(pl.Float64)
    return frame.columns, frame.to_numpy()


def read_roads() -> Floats:
    """Reads the weights (n, n) of the road graph."""
    graph = pl.read_csv(real("metr_la/los_adj.csv"), has_header=False, infer_schema_length=None)
    return graph.cast(pl.Float64).to_numpy()


def messages(names: list[str], speeds: Floats) -> list[bytes]:
    """Returns the messages of the detectors: one for each step."""
    return [
        json.dumps(
            {
                "at": (BEGIN + step * EVERY).isoformat(),
                "detectors": [{"id": name, "mph": speed} for name, speed in zip(names, row, strict=True)],
            }
        ).encode()
        for step, row in enumerate(speeds.tolist())
    ]


def build_lake(folder: Path, tell: Callable[[str], None]) -> Lakehouse:
    """Maps the messages to events, and builds the tables from them. Raises ValueError where an event is rejected."""
    config = Settings(home=folder, timezone=ZONE, country="US")
    names, speeds = read_speeds()
    mapped = map_messages(LOOP_DETECTORS, messages(names, speeds))
    if mapped.rejected:
        raise ValueError(f"{len(mapped.rejected)} messages are rejected: {next(iter(mapped.rejected.values()))}")
    events = mapped.events.with_columns(pl.col("timestamp").dt.convert_time_zone(ZONE).dt.date().alias(DAY))
    days = sorted(events[DAY].unique())
    for day in days:
        appended = append_day(config.lake, DETECTOR_SPEEDS, day, events.filter(pl.col(DAY) == day).drop(DAY, "_row"))
        if appended is not None and appended.rejected:
            raise ValueError(f"{appended.rejected} events of {day} are rejected: see {config.lake}/quarantine")
    tell(f"{events.height:,} events of {len(names)} detectors")
    links = np.argwhere(read_roads() > 0)
    pairs = [
        (names[a], names[b])
        for a, b in {(int(a), int(b)) for a, b in links} | {(int(b), int(a)) for a, b in links}
        if a != b
    ]
    roads = pl.DataFrame(sorted(pairs), schema=["cell", "neighbour"], orient="row")
    update(config.lake, ROAD_LINKS, lambda _: roads, "the road graph of METR-LA")
    house = lakehouse(config)
    own = {table.id: table for table in (WINDOWS, HOURLY, USUAL, PAIRS, LEADING, FEATURES)}
    house = replace(
        house,
        contracts={**house.contracts, DETECTOR_SPEEDS.name: DETECTOR_SPEEDS},
        tables={**house.tables, **own},
    )
    for table in own.values():
        built = house.pinned().build(table, days, full=True)
        tell(f"{table.id}: {built.rows:,} rows")
    return house
