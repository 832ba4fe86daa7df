"""The contracts of the machines: their sensor readings, and their maintenance log."""

from city.contracts import IDENTIFIER, Contract, Field
from city_assets.equipment.fleet import Fleet, Signal, Trailing

_NAME = r"\w[\w .:'-]*"

FLEET = Fleet(
    name="fleet",
    signals=(
        Signal(name="temperature", unit="°C", minimum=-40, maximum=250, description="of the bearing's housing"),
        Signal(
            name="vibration",
            unit="mm/s",
            minimum=0,
            maximum=100,
            description="root mean square velocity (ISO 10816)",
        ),
        Signal(name="pressure", unit="bar", minimum=0, maximum=100, description="at the outlet"),
        Signal(name="power", unit="kW", minimum=0, maximum=1000, description="drawn from the mains"),
    ),
    # A machine reports every five seconds.
    windows=(
        Trailing(name="now", readings=3, description="15 seconds", is_for_life=False),
        Trailing(name="recent", readings=12, description="minute"),
        Trailing(name="long", readings=120, description="ten minutes"),
    ),
    spread_over="recent",
    trends=(("recent", "long"),),
)
"""The machines of the simulated city. Machines that report these signals to its topic belong to it, too."""
SIGNALS = FLEET.names


def readings_contract(
    fleet: Fleet,
    name: str,
    topic: str,
    version: int = 1,
    identity: tuple[Field, ...] = (),
    further: tuple[Field, ...] = (),
    within: str | None = "readings",
) -> Contract:
    """Returns the contract of a fleet's sensor readings.

    An event has the time, the machine, the fields of `identity`, the signals (in the JSON object `within`), and
    `further` fields.
    """
    return Contract(
        name=name,
        topic=topic,
        version=version,
        description="What a machine's sensors read.",
        key="machine_id",
        event_time="timestamp",
        fields=(
            Field(name="timestamp", kind="timestamp", description="when it was read"),
            Field(name="machine_id", kind="string", pattern=IDENTIFIER, description="the machine"),
            *identity,
            *fleet.fields(within),
            *further,
        ),
    )


SENSOR_READINGS = readings_contract(
    FLEET,
    name="sensor_readings",
    topic="sensor-readings",
    version=3,
    identity=(Field(name="sensor_id", kind="string", pattern=IDENTIFIER, description="the sensor unit"),),
    further=(
        Field(name="location", kind="string", pattern=_NAME, description="where it stands", within="metadata"),
        Field(name="shift", kind="string", pattern=_NAME, description="the shift on duty", within="metadata"),
    ),
)

MAINTENANCE_LOG = Contract(
    name="maintenance_log",
    topic="maintenance-log",
    version=3,
    description="What was done to a machine, or happened to it.",
    key="machine_id",
    event_time="timestamp",
    rate="low",
    partitions=1,
    fields=(
        Field(name="timestamp", kind="timestamp", description="when"),
        Field(name="machine_id", kind="string", pattern=IDENTIFIER, description="the machine"),
        Field(
            name="kind",
            kind="string",
            choices=("commissioned", "inspection", "failure", "repair"),
            description="what it was: failure ends a machine's life, repair begins another",
        ),
        Field(name="cause", kind="string", pattern=_NAME, nullable=True, description="the cause of the fault"),
    ),
)

CONTRACTS = (SENSOR_READINGS, MAINTENANCE_LOG)
