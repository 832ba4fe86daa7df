"""The contracts of the machines: their sensor readings, and their maintenance log."""

from city.contracts import Contract, Field

SIGNALS = ("temperature", "vibration", "pressure", "power")
_ID = r"[A-Za-z0-9][\w.:-]*"
_NAME = r"\w[\w .:'-]*"

SENSOR_READINGS = Contract(
    name="sensor_readings",
    topic="sensor-readings",
    version=2,
    description="What a machine's sensors read.",
    key="machine_id",
    event_time="timestamp",
    fields=(
        Field(name="timestamp", kind="timestamp", description="when it was read"),
        Field(name="machine_id", kind="string", pattern=_ID, description="the machine"),
        Field(name="sensor_id", kind="string", pattern=_ID, description="the sensor unit"),
        *(
            Field(
                name=name,
                kind="float",
                unit=unit,
                minimum=least,
                maximum=most,
                description=description,
                within="readings",
            )
            for name, unit, least, most, description in (
                ("temperature", "°C", -40, 250, "of the bearing's housing"),
                ("vibration", "mm/s", 0, 100, "root mean square velocity (ISO 10816)"),
                ("pressure", "bar", 0, 100, "at the outlet"),
                ("power", "kW", 0, 1000, "drawn from the mains"),
            )
        ),
        Field(name="location", kind="string", pattern=_NAME, description="where it stands", within="metadata"),
        Field(name="shift", kind="string", pattern=_NAME, description="the shift on duty", within="metadata"),
    ),
)

MAINTENANCE_LOG = Contract(
    name="maintenance_log",
    topic="maintenance-log",
    version=2,
    description="What was done to a machine, or happened to it.",
    key="machine_id",
    event_time="timestamp",
    rate="low",
    partitions=1,
    fields=(
        Field(name="timestamp", kind="timestamp", description="when"),
        Field(name="machine_id", kind="string", pattern=_ID, description="the machine"),
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
