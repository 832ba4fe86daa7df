"""The equipment's derived tables, and the reference tables that people edit."""

from city.tables import Column, Source, Table, calendar
from city.tables.silver import log_table
from city_assets.equipment import transforms
from city_assets.equipment.contract import MAINTENANCE_LOG, SIGNALS

_DAY = calendar.COLUMNS[0]
_MACHINE = Column(name="machine_id", kind="string", description="the machine")
_MACHINE_SOURCE = ("readings.machine_id",)
_SPANS = {"now": "15 seconds", "recent": "minute", "long": "ten minutes"}

MACHINES = Table(
    name="machines",
    layer="reference",
    description="The machines: what they are, where they stand, and how bad it is when one stands still.",
    key=("machine_id",),
    daily=False,
    columns=(
        _MACHINE,
        Column(name="kind", kind="string", description="its type, such as pump or motor"),
        Column(name="location", kind="string", description="where it stands"),
        Column(name="criticality", kind="integer", description="1 can wait, 2 soon, 3 at once"),
        Column(name="manufacturer", kind="string", nullable=True, description="who made it"),
        Column(name="model", kind="string", nullable=True, description="the manufacturer's name of its type"),
        Column(name="installed", kind="date", nullable=True, description="the day since which it stands there"),
        Column(name="status", kind="string", nullable=True, description="such as running, standby or retired"),
    ),
)

MACHINE_SENSORS = Table(
    name="machine_sensors",
    layer="reference",
    description="What is normal for each signal of each machine, from idle to full load.",
    key=("machine_id", "signal"),
    daily=False,
    columns=(
        _MACHINE,
        Column(name="signal", kind="string", description=", ".join(SIGNALS)),
        Column(name="sensor_id", kind="string", description="the sensor unit"),
        Column(name="normal_minimum", kind="float", description="in the signal's unit"),
        Column(name="normal_maximum", kind="float", description="in the signal's unit"),
        Column(name="unit", kind="string", nullable=True, description="the signal's unit"),
    ),
)

ANOMALY_EVENTS = Table(
    name="anomaly_events",
    layer="reference",
    description="When machines were not as they should be; what people found out about it.",
    key=("machine_id", "begin"),
    daily=False,
    columns=(
        _MACHINE,
        Column(name="begin", kind="timestamp", description="the first reading that was an anomaly"),
        Column(name="end", kind="timestamp", description="the last one"),
        Column(name="readings", kind="integer", description="how many of them"),
        Column(name="peak_score", kind="float", description="the highest score; over 1 is an anomaly"),
        Column(name="signal", kind="string", description="the signal that contributed most"),
        Column(
            name="confirmed",
            kind="boolean",
            nullable=True,
            description="whether something was wrong; empty: not judged",
        ),
        Column(name="root_cause", kind="string", nullable=True, description="what it was"),
        Column(name="resolution", kind="string", nullable=True, description="what was done"),
        Column(name="resolved_at", kind="timestamp", nullable=True, description="when it was done"),
    ),
)


def _feature(name: str, description: str) -> Column:
    return Column(
        name=name, kind="float", nullable=True, description=description, origins=(f"readings.{name.split('_')[0]}",)
    )


MACHINE_FEATURES = Table(
    name="machine_features",
    layer="features",
    description="What is known of a machine at each of its readings, in shares of its normal ranges.",
    key=("machine_id", "timestamp"),
    time="timestamp",
    look_back=transforms.LONG,
    columns=(
        Column(name="machine_id", kind="string", description="the machine", origins=_MACHINE_SOURCE),
        Column(name="timestamp", kind="timestamp", description="the reading's time", origins=("readings.timestamp",)),
        *(
            _feature(f"{signal}_{name}", f"mean {signal} of the last {span}")
            for signal in SIGNALS
            for name, span in _SPANS.items()
        ),
        *(_feature(f"{signal}_spread", f"spread of {signal} in the last minute") for signal in SIGNALS),
        Column(name="first_of_minute", kind="boolean", description="whether it is its machine's first of a minute"),
        _DAY,
    ),
    sources={
        "readings": Source(table="silver/sensor_readings", days_before=1),
        "ranges": Source(table=MACHINE_SENSORS.id),
    },
    transform=transforms.machine_features,
)

MACHINE_FAULTS = Table(
    name="machine_faults",
    layer="gold",
    description="When machines were not as they should be, by the log and by what people have confirmed.",
    key=("machine_id", "begin"),
    daily=False,
    columns=(
        Column(
            name="machine_id", kind="string", description="the machine", origins=("log.machine_id", "events.machine_id")
        ),
        Column(name="begin", kind="timestamp", description="from", origins=("log.timestamp", "events.begin")),
        Column(name="end", kind="timestamp", description="to", origins=("log.timestamp", "events.end")),
        Column(
            name="cause",
            kind="string",
            nullable=True,
            description="the cause of the fault",
            origins=("log.cause", "events.root_cause"),
        ),
    ),
    sources={"log": Source(table="silver/maintenance_log"), "events": Source(table=ANOMALY_EVENTS.id)},
    transform=transforms.machine_faults,
)

TABLES = (MACHINES, MACHINE_SENSORS, ANOMALY_EVENTS, log_table(MAINTENANCE_LOG), MACHINE_FEATURES, MACHINE_FAULTS)
