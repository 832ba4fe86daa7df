"""The contracts of the city's sensors: their readings, and the announcements of their type and location."""

from datetime import timedelta

from city.contracts import (
    IDENTIFIER,
    MACHINE_ZONE,
    Contract,
    Count,
    Distinct,
    Field,
    H3Cell,
    Mean,
    Quantities,
    Quantity,
    Reference,
    Rule,
    Window,
)

QUANTITIES = (
    Quantity(name="traffic", unit="vehicles/min", minimum=0, maximum=500, description="vehicles that passed"),
    Quantity(
        name="air_quality",
        unit="AQI",
        minimum=0,
        maximum=500,
        follows_the_clock=False,  # on a calm day it is several times that of a windy one
        description="US EPA air quality index",
    ),
    Quantity(name="noise", unit="dB", minimum=30, maximum=140, description="A-weighted sound level"),
    Quantity(
        name="temperature",
        unit="°C",
        minimum=-20,
        maximum=50,
        follows_the_clock=False,
        description="air temperature",
    ),
    Quantity(
        name="humidity", unit="%", minimum=0, maximum=100, follows_the_clock=False, description="relative humidity"
    ),
    Quantity(
        name="precipitation",
        unit="mm/h",
        minimum=0,
        maximum=300,
        idle=0.0,
        follows_the_clock=False,
        description="rain and melted snow",
    ),
    Quantity(
        name="wind",
        unit="m/s",
        minimum=0,
        maximum=75,
        follows_the_clock=False,
        description="mean wind speed of a minute",
    ),
    Quantity(
        name="pressure",
        unit="hPa",
        minimum=300,
        maximum=1_100,
        follows_the_clock=False,
        description="air pressure at the sensor",
    ),
    Quantity(
        name="pm2_5",
        unit="µg/m³",
        minimum=0,
        maximum=2_000,
        idle=0.0,
        follows_the_clock=False,
        description="particles below 2.5 µm",
    ),
    Quantity(
        name="pm10",
        unit="µg/m³",
        minimum=0,
        maximum=5_000,
        idle=0.0,
        follows_the_clock=False,
        description="particles below 10 µm",
    ),
    Quantity(name="speed", unit="km/h", minimum=0, maximum=250, description="mean speed of the vehicles that passed"),
    Quantity(name="consumption", unit="kWh", minimum=0, maximum=1_000_000, description="energy drawn in the last hour"),
    Quantity(name="voltage", unit="V", minimum=0, maximum=500, description="mains voltage"),
    Quantity(name="current", unit="A", minimum=0, maximum=200, description="mains current"),
)
TYPES = tuple(quantity.name for quantity in QUANTITIES)
_UNITS = tuple(dict.fromkeys(quantity.unit for quantity in QUANTITIES))
_PLACE = r"\w[\w .:'-]*"

SENSORS = Contract(
    name="sensors",
    topic="city.sensors",
    version=4,
    description="A sensor's reading. A station with several sensors has an id for each.",
    mqtt="city/sensors/<location>/<type>",
    key="sensor_id",
    event_time="timestamp",
    fields=(
        Field(name="timestamp", kind="timestamp", zone=MACHINE_ZONE, description="when it was measured"),
        Field(name="sensor_id", kind="string", pattern=IDENTIFIER, description="the sensor"),
        Field(name="type", kind="string", choices=TYPES, description="what is measured"),
        Field(
            name="location",
            kind="string",
            pattern=_PLACE,
            nullable=True,
            description="the district; without it, the one that the sensor announced",
        ),
        Field(name="value", kind="float", description="the reading, in `unit`"),
        Field(name="unit", kind="string", choices=_UNITS, description="the unit of `type`"),
        Field(
            name="latitude",
            kind="float",
            unit="°",
            minimum=-90,
            maximum=90,
            nullable=True,
            description="WGS 84 latitude; without it, the one that the sensor announced",
        ),
        Field(
            name="longitude",
            kind="float",
            unit="°",
            minimum=-180,
            maximum=180,
            nullable=True,
            description="WGS 84 longitude; without it, the one that the sensor announced",
        ),
    ),
    quantities=Quantities(value="value", unit="unit", by="type", choices=QUANTITIES),
    references=(Reference(field="sensor_id", to="devices"),),
    windows=(
        Window(
            name="location_traffic",
            every=timedelta(minutes=5),
            by="location",
            where="type = 'traffic' AND location IS NOT NULL",
            aggregates=(Distinct("sensors", "sensor_id"), Count("readings"), Mean("traffic_mean", "value")),
            topic="city.processed.traffic",
            description="Mean traffic (vehicles/min) at a location.",
        ),
        *(
            Window(
                name=f"location_{kind}",
                every=timedelta(minutes=5),
                by="location",
                where=f"type = '{kind}' AND location IS NOT NULL",
                aggregates=(Count("readings"), Mean(f"{kind}_mean", "value")),
                description=f"Mean {kind.replace('_', ' ')} at a location.",
            )
            for kind in ("air_quality", "noise", "temperature", "humidity", "precipitation", "wind")
        ),
    ),
)

DEVICES = Contract(
    name="devices",
    topic="city.devices",
    version=4,
    description="A sensor announces itself, or a change of itself. The reference that readings are looked up in.",
    key="sensor_id",
    event_time="timestamp",
    rate="low",
    partitions=1,
    fields=(
        Field(name="timestamp", kind="timestamp", description="when it announced itself"),
        Field(name="sensor_id", kind="string", pattern=IDENTIFIER, description="the sensor"),
        Field(name="type", kind="string", choices=TYPES, description="what it measures"),
        Field(name="location", kind="string", pattern=_PLACE, description="the district it stands in"),
        Field(name="latitude", kind="float", unit="°", minimum=-90, maximum=90, description="WGS 84 latitude"),
        Field(name="longitude", kind="float", unit="°", minimum=-180, maximum=180, description="WGS 84 longitude"),
        Field(name="unit", kind="string", choices=_UNITS, description="the unit of its readings"),
        Field(name="normal_minimum", kind="float", description="the least that is normal where it stands, in `unit`"),
        Field(name="normal_maximum", kind="float", description="the most that is normal where it stands, in `unit`"),
        Field(name="firmware", kind="string", pattern=r"[0-9]+\.[0-9]+\.[0-9]+", description="its firmware's version"),
    ),
    rules=(
        Rule(
            name="normal_range",
            sql="normal_minimum <= normal_maximum",
            description="the normal range's minimum is not above its maximum",
        ),
    ),
    cells=(H3Cell(name="cell", resolution=8),),
)

CONTRACTS = (SENSORS, DEVICES)
