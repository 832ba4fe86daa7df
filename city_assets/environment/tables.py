"""The environment's derived tables, with the meaning and the sources of their columns."""

from city.tables import Column, Source, Table, calendar
from city.tables.silver import latest_table, silver_table
from city_assets.environment import transforms
from city_assets.environment.contract import DEVICES, QUANTITIES, SENSORS

_DAY, _LOCAL_HOUR, _WEEKDAY, _HOLIDAY, _RUSH_HOUR = calendar.COLUMNS
_LOCATION = Column(name="location", kind="string", description="the district", origins=("sensors.location",))
_READINGS = Column(name="readings", kind="integer", description="how many readings")
_SENSORS = {"sensors": Source(table="silver/sensors")}
_WORDS = {"mean": "mean of", "min": "least", "max": "most"}


def _quantities(*aggregates: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            name=f"{q.name}_{aggregate}",
            kind="float",
            unit=q.unit,
            nullable=True,
            description=f"{_WORDS[aggregate]} {q.description}",
            origins=("sensors.value", "sensors.type"),
        )
        for aggregate in aggregates
        for q in QUANTITIES
    )


def _number(name: str, description: str, unit: str | None = None, nullable: bool = False) -> Column:
    return Column(
        name=name, kind="float", unit=unit, description=description, nullable=nullable, origins=("sensors.value",)
    )


SILVER_SENSORS = silver_table(
    SENSORS,
    columns=(
        Column(
            name="cell",
            kind="string",
            nullable=True,
            description="H3 cell of the place that it announced",
            origins=("devices.cell",),
        ),
    ),
    sources={"devices": Source(table="silver/devices")},
    enrich=lambda rows, devices: transforms.add_position(rows, devices),
)

CONDITIONS_HOURLY = Table(
    name="city_conditions_hourly",
    layer="gold",
    description="What it was like in each district by the hour.",
    key=("hour", "location"),
    time="hour",
    columns=(
        _DAY,
        Column(name="hour", kind="timestamp", description="the hour's beginning, UTC", origins=("sensors.timestamp",)),
        _LOCAL_HOUR,
        _WEEKDAY,
        _RUSH_HOUR,
        _LOCATION,
        _READINGS,
        *_quantities("mean"),
    ),
    sources=_SENSORS,
    transform=transforms.conditions_hourly,
)

CONDITIONS_DAILY = Table(
    name="city_conditions_daily",
    layer="gold",
    description="What it was like in each district by the day.",
    key=("day", "location"),
    columns=(_DAY, _LOCATION, _READINGS, *_quantities("mean", "min", "max")),
    sources=_SENSORS,
    transform=transforms.conditions_daily,
)

SENSOR_HEALTH = Table(
    name="sensor_health_daily",
    layer="gold",
    description="How well each sensor worked on each day.",
    key=("day", "sensor_id"),
    columns=(
        _DAY,
        Column(name="sensor_id", kind="string", description="the sensor", origins=("sensors.sensor_id",)),
        _LOCATION,
        Column(name="type", kind="string", description="what it measures", origins=("sensors.type",)),
        _READINGS,
        Column(name="first_at", kind="timestamp", description="its first reading", origins=("sensors.timestamp",)),
        Column(name="last_at", kind="timestamp", description="its last reading", origins=("sensors.timestamp",)),
        Column(
            name="uptime",
            kind="float",
            description="share of the day's quarter-hours in which it reported",
            origins=("sensors.timestamp",),
        ),
        Column(
            name="longest_gap_seconds",
            kind="integer",
            unit="s",
            nullable=True,
            description="longest time between two readings",
            origins=("sensors.timestamp",),
        ),
        _number("value_mean", "mean reading, in its unit"),
        _number("value_std", "spread of its readings, in its unit", nullable=True),
        _number("offset", "its mean less that of its kind at its location"),
        _number("drift", "how far the offset moved since the day before, in spreads", nullable=True),
    ),
    sources={"sensors": Source(table="silver/sensors", days_before=1)},
    transform=transforms.sensor_health_daily,
)

_LIVE = ("air_quality", "noise", "temperature", "humidity", "precipitation", "wind", "traffic")
_UNITS = {q.name: q.unit for q in QUANTITIES}


def _feature(name: str, description: str, source_column: str, unit: str | None = None) -> Column:
    return Column(name=name, kind="float", unit=unit, nullable=True, description=description, origins=(source_column,))


WEATHER_FEATURES = Table(
    name="weather_features",
    layer="features",
    description="What is known of a district's air, noise, weather and traffic when a window of five minutes ends.",
    key=("location", "as_of"),
    time="as_of",
    columns=(
        Column(name="location", kind="string", description="the district", origins=("air_quality.location",)),
        Column(name="as_of", kind="timestamp", description="the window's end", origins=("air_quality.window_start",)),
        Column(
            name="window_start", kind="timestamp", description="its beginning", origins=("air_quality.window_start",)
        ),
        *(_feature(f"{name}_mean", f"mean {name}", f"{name}.{name}_mean", _UNITS[name]) for name in _LIVE),
        *(
            _feature(f"{name}_lag_1", f"mean {name} in the window before", f"{name}.{name}_mean", _UNITS[name])
            for name in _LIVE
        ),
        _LOCAL_HOUR,
        _WEEKDAY,
        Column(name="holiday", kind="boolean", description="whether the day is a public holiday"),
        _RUSH_HOUR,
        _DAY,
    ),
    sources={
        **{name: Source(table=f"gold/location_{name}", days_before=1) for name in _LIVE},
        "calendar": Source(table="reference/calendar"),
    },
    transform=transforms.weather_features,
)

SENSOR_FEATURES = Table(
    name="sensor_features",
    layer="features",
    description="What a sensor reported in an hour.",
    key=("sensor_id", "as_of"),
    time="as_of",
    columns=(
        Column(name="sensor_id", kind="string", description="the sensor", origins=("sensors.sensor_id",)),
        Column(name="as_of", kind="timestamp", description="the hour's end", origins=("sensors.timestamp",)),
        Column(name="hour", kind="timestamp", description="the hour's beginning, UTC", origins=("sensors.timestamp",)),
        _READINGS,
        _feature("value_mean", "mean reading", "sensors.value"),
        _feature("value_std", "spread of its readings", "sensors.value"),
        _feature("value_min", "least reading", "sensors.value"),
        _feature("value_max", "highest reading", "sensors.value"),
        _DAY,
    ),
    sources=_SENSORS,
    transform=transforms.sensor_features,
)

TABLES = (
    WEATHER_FEATURES,
    SENSOR_FEATURES,
    SILVER_SENSORS,
    latest_table(DEVICES),
    CONDITIONS_HOURLY,
    CONDITIONS_DAILY,
    SENSOR_HEALTH,
)
