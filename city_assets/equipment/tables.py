"""The equipment's derived tables, and the reference tables that people edit."""

from functools import partial
from typing import Literal

from city.tables import Column, Source, Table, calendar
from city.tables.silver import log_table
from city_assets.equipment import transforms
from city_assets.equipment.contract import FLEET, MAINTENANCE_LOG
from city_assets.equipment.fleet import Fleet
from city_assets.equipment.limits import DEFAULT_KIND, LIMIT_COLUMNS, UNITS

_DAY = calendar.COLUMNS[0]
_MACHINE = Column(name="machine_id", kind="string", description="the machine")
_MACHINE_SOURCE = ("readings.machine_id",)

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

_IN_UNIT = "in the unit of a life"

MACHINE_TYPES = Table(
    name="machine_types",
    layer="reference",
    description="How long the machines of a kind live, and when to act. Kinds without a row have that of `default`.",
    key=("kind",),
    daily=False,
    columns=(
        Column(name="kind", kind="string", description=f"the machines' kind, or {DEFAULT_KIND} for all others"),
        Column(name="life_unit", kind="string", description=f"the unit of a life: {', '.join(UNITS)}", choices=UNITS),
        Column(name="life_cap", kind="float", description=f"the longest remaining life that is predicted, {_IN_UNIT}"),
        Column(name="order_below", kind="float", description=f"order parts below this remaining life, {_IN_UNIT}"),
        Column(name="replace_below", kind="float", description=f"replace in this shift below this, {_IN_UNIT}"),
        Column(name="stop_below", kind="float", description=f"stop the machine below this, {_IN_UNIT}"),
        Column(
            name="hours_per_cycle",
            kind="float",
            unit="h",
            nullable=True,
            description="the mean time from one cycle to the next, where the unit is cycles",
        ),
    ),
    faults=(*transforms.type_faults(), *transforms.limit_faults()),
)

MACHINE_SENSORS = Table(
    name="machine_sensors",
    layer="reference",
    description="What is normal for each signal of each machine, from idle to full load.",
    key=("machine_id", "signal", "condition"),
    daily=False,
    columns=(
        _MACHINE,
        Column(name="signal", kind="string", description=", ".join(FLEET.names)),
        Column(name="sensor_id", kind="string", description="the sensor unit"),
        Column(name="normal_minimum", kind="float", description="in the signal's unit"),
        Column(name="normal_maximum", kind="float", description="in the signal's unit"),
        Column(name="unit", kind="string", nullable=True, description="the signal's unit"),
        Column(
            name="condition",
            kind="string",
            nullable=True,
            description="the operating condition for which it is normal, of a fleet with settings; empty: for all",
        ),
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


_LIMITS: tuple[tuple[str, Literal["float", "string"], str | None, str, tuple[str, ...]], ...] = (
    ("life_cap_hours", "float", "h", "the longest remaining life that is predicted", ("types.life_cap",)),
    ("order_below_hours", "float", "h", "the remaining life below which to order parts", ("types.order_below",)),
    ("replace_below_hours", "float", "h", "that below which to replace in this shift", ("types.replace_below",)),
    ("stop_below_hours", "float", "h", "that below which to stop the machine", ("types.stop_below",)),
    ("life_unit", "string", None, "the unit of a life: " + ", ".join(UNITS), ("types.life_unit",)),
    ("life_unit_hours", "float", "h", "the hours of one unit", ("types.life_unit", "types.hours_per_cycle")),
)
assert [name for name, *_ in _LIMITS] == list(LIMIT_COLUMNS)


def features_table(fleet: Fleet, name: str, readings: str) -> Table:
    """Returns the feature table of a fleet, from the table of its readings (`layer/name`)."""
    spread = fleet.window(fleet.spread_over)
    descriptions = {
        f"{signal}_{window.name}": (signal, f"mean {signal} of the last {window.description}")
        for signal in fleet.names
        for window in fleet.windows
    } | {f"{signal}_spread": (signal, f"spread of {signal} in the last {spread.description}") for signal in fleet.names}
    for newer, older in fleet.trends:
        text = f"in the last {fleet.window(newer).description}, against the last {fleet.window(older).description}"
        descriptions |= {f"{s}_{newer}_over_{older}": (s, f"growth of {s} {text}") for s in fleet.names}
    if fleet.counter:
        descriptions |= {"age": (fleet.counter.name, "the counter's share of the longest predicted remaining life")}
    return Table(
        name=name,
        layer="features",
        description="What is known of a machine at each of its readings, in shares of its normal ranges.",
        key=("machine_id", "timestamp"),
        time="timestamp",
        look_back=fleet.look_back,
        columns=(
            Column(name="machine_id", kind="string", description="the machine", origins=_MACHINE_SOURCE),
            Column(
                name="timestamp", kind="timestamp", description="the reading's time", origins=("readings.timestamp",)
            ),
            *(
                Column(name=feature, kind="float", nullable=True, description=text, origins=(f"readings.{signal}",))
                for feature, (signal, text) in descriptions.items()
            ),
            Column(name="first_of_minute", kind="boolean", description="whether it is its machine's first of a minute"),
            *(
                Column(name=column, kind=kind, unit=unit, nullable=True, description=text, origins=origins)
                for column, kind, unit, text, origins in _LIMITS
            ),
            _DAY,
        ),
        sources={
            "readings": Source(table=readings, days_before=1),
            "ranges": Source(table=MACHINE_SENSORS.id),
            "machines": Source(table=MACHINES.id),
            "types": Source(table=MACHINE_TYPES.id),
        },
        transform=partial(transforms.machine_features, fleet),
    )


MACHINE_FEATURES = features_table(FLEET, name="machine_features", readings="silver/sensor_readings")

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

TABLES = (
    MACHINES,
    MACHINE_TYPES,
    MACHINE_SENSORS,
    ANOMALY_EVENTS,
    log_table(MAINTENANCE_LOG),
    MACHINE_FEATURES,
    MACHINE_FAULTS,
)
