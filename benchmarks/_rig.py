"""SKAB's water pump rig as a machine of the platform: from the files of its runs to the rows of its feature table."""

import json
from pathlib import Path

import polars as pl

from benchmarks._served import as_bronze
from city.features.events import calendar_of
from city.features.plan import Plan
from city.sources.model import At, Source
from city.tables.schema import schema
from city.tables.silver import silver_table
from city_assets.equipment.contract import readings_contract
from city_assets.equipment.fleet import Fleet, Signal, Trailing
from city_assets.equipment.tables import MACHINE_SENSORS, MACHINE_TYPES, MACHINES, features_table

_VIBRATION = "root mean square of the acceleration"
COLUMNS = {
    "accelerometer_1": "Accelerometer1RMS",
    "accelerometer_2": "Accelerometer2RMS",
    "current": "Current",
    "pressure": "Pressure",
    "temperature": "Temperature",
    "thermocouple": "Thermocouple",
    "voltage": "Voltage",
    "flow": "Volume Flow RateRMS",
}
"""The files' columns of the signals."""
RIG = Fleet(
    name="rig",
    signals=(
        Signal(name="accelerometer_1", unit="g", minimum=0, maximum=100, description=f"{_VIBRATION}, of the pump"),
        Signal(name="accelerometer_2", unit="g", minimum=0, maximum=100, description=f"{_VIBRATION}, of the motor"),
        Signal(name="current", unit="A", minimum=-100, maximum=1000, description="of the motor"),
        Signal(name="pressure", unit="bar", minimum=-100, maximum=1000, description="after the pump"),
        Signal(name="temperature", unit="°C", minimum=-100, maximum=1000, description="of the motor's body"),
        Signal(name="thermocouple", unit="°C", minimum=-100, maximum=1000, description="of the fluid"),
        Signal(name="voltage", unit="V", minimum=-1000, maximum=1000, description="of the motor"),
        Signal(name="flow", unit="l/min", minimum=-1000, maximum=1000, description="of the fluid"),
    ),
    # The rig reports each second. Its window is as long as the simulated fleet's shortest one.
    windows=(Trailing(name="now", readings=15, description="15 seconds"),),
    spread_over="now",
)
READINGS = readings_contract(RIG, name="rig_readings", topic="rig-readings", within=None)
FEATURES = features_table(RIG, name="rig_features", readings=f"silver/{READINGS.name}")
SOURCE = Source(
    name="skab",
    contract=READINGS,
    description="A row of SKAB as a message: the rig's sensors at one second of a run.",
    documentation="https://github.com/waico/SKAB",
    sample=json.dumps({"run": "1", "datetime": "2020-03-09 10:14:33", **dict.fromkeys(COLUMNS.values(), "1.0")}),
    kafka="skab",
    fields={
        "timestamp": At("datetime"),
        "machine_id": At("run"),
        **{name: At(column) for name, column in COLUMNS.items()},
    },
    accepts=frozenset({"text"}),
)


def load_run(file: Path) -> pl.DataFrame:
    """Returns a run's rows of the feature table, in order of time, with `is_anomaly` where the file has labels.

    Raises ValueError where the contract rejects a row.
    """
    texts = pl.read_csv(file, separator=";", infer_schema=False)
    rows = features_of(file.stem, texts)
    if "anomaly" in texts.columns:
        labels = texts.select(timestamp="datetime", is_anomaly=pl.col("anomaly").cast(pl.Float64) > 0)
        times = pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC")
        labels = labels.with_columns(times).unique("timestamp", keep="last")  # as the platform keeps readings
        rows = rows.join(labels, on="timestamp", how="left", validate="1:1")
    return rows


def features_of(run: str, texts: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows of the feature table, in order of time, of the rows of a file as texts.

    Raises ValueError where the contract rejects a row.
    """
    messages = texts.select("datetime", *COLUMNS.values(), run=pl.lit(run)).write_ndjson().encode().splitlines()
    readings = as_bronze(SOURCE, messages)
    days = calendar_of(readings["timestamp"], "UTC", "US")
    silver = Plan(silver_table(READINGS)).run({READINGS.name: readings, "calendar": days})
    # Nobody has given the rig's normal ranges. From 0 to 1, the features keep the signals' units.
    units = [
        {"machine_id": run, "signal": name, "sensor_id": name, "normal_minimum": 0.0, "normal_maximum": 1.0}
        for name in RIG.names
    ]
    ranges = pl.DataFrame(units, schema=schema(MACHINE_SENSORS))
    others = {"machines": pl.DataFrame(schema=schema(MACHINES)), "types": pl.DataFrame(schema=schema(MACHINE_TYPES))}
    return Plan(FEATURES).run({"readings": silver, "ranges": ranges, **others}).sort("timestamp")
