"""Sensors of other makes: how their messages become readings of the contract `sensors`."""

from city.contracts import MACHINE_ZONE
from city.sources.model import ARRIVED, CITY_ZONE, Arrived, At, Joined, Part, Source, Value
from city.sources.ngsi import ENTITIES
from city.sources.units import UNIT_CODES
from city_assets.environment.contract import SENSORS

_TTN = "uplink_message.decoded_payload"
_DOCUMENTS = "docs/sources.md"


def _city_sensor(kind: str, description: str, sample: str, **measures: Value) -> Source:
    """Returns the source of a kind of the city's own sensors with several measures in a message."""
    return Source(
        name=f"city_{kind}",
        contract=SENSORS,
        description=description,
        documentation=_DOCUMENTS,
        sample=sample,
        mqtt="city/sensors/<device>",
        when={"type": (kind,)},
        names={"device": At("sensor_id")},
        fields={
            "timestamp": At("timestamp", zone=MACHINE_ZONE),
            "sensor_id": Joined("{device}_{type}"),
            "latitude": At("location.lat"),
            "longitude": At("location.lon"),
        },
        measures=measures,
    )


CITY_TRAFFIC = _city_sensor(
    "traffic",
    "A traffic sensor: how many vehicles passed in a minute, and how fast.",
    '{"type": "traffic", "sensor_id": "traffic_3", "timestamp": "2026-11-27T10:00:00", "vehicle_count": 37, '
    '"avg_speed": 43.21, "location": {"lat": 40.7484, "lon": -73.9857}}',
    traffic=At("vehicle_count"),
    speed=At("avg_speed"),
)
CITY_ENVIRONMENT = _city_sensor(
    "environment",
    "An environmental monitor: temperature, humidity and the air quality index.",
    '{"type": "environment", "sensor_id": "env_2", "timestamp": "2026-11-27T10:00:00", "temperature": 21.37, '
    '"humidity": 58, "air_quality_index": 83}',
    temperature=At("temperature"),
    humidity=At("humidity"),
    air_quality=At("air_quality_index"),
)
CITY_UTILITY = _city_sensor(
    "utility",
    "A meter: energy, voltage and current.",
    '{"type": "utility", "sensor_id": "utility_4", "timestamp": "2026-11-27T10:00:00", "consumption": 1203.55, '
    '"voltage": 228.14, "current": 17.62}',
    consumption=At("consumption"),
    voltage=At("voltage"),
    current=At("current"),
)

THE_THINGS_STACK = Source(
    name="the_things_stack",
    contract=SENSORS,
    description="LoRaWAN devices on The Things Stack v3 (The Things Network), with a payload formatter that gives "
    "these names, or those of Cayenne LPP.",
    documentation="https://www.thethingsindustries.com/docs/integrations/data-formats/",
    sample='{"end_device_ids": {"device_id": "dev1", "application_ids": {"application_id": "app1"}, '
    '"dev_eui": "0004A30B001C0530", "join_eui": "800000000000000C", "dev_addr": "00BCB929"}, '
    '"received_at": "2020-02-12T15:15:45.787Z", "uplink_message": {"f_cnt": 1, "f_port": 1, "frm_payload": "gkHe", '
    '"decoded_payload": {"temperature": 1.0, "luminosity": 0.64}, "received_at": "2020-02-12T15:15:45.569Z"}}',
    mqtt="v3/<application>/devices/<device>/up",
    names={"device": At("end_device_ids.device_id")},
    fields={
        "timestamp": At("uplink_message.received_at|received_at"),
        "sensor_id": Joined("{device}_{type}"),
        "latitude": At("uplink_message.locations.user.latitude"),
        "longitude": At("uplink_message.locations.user.longitude"),
    },
    measures={
        "temperature": At(f"{_TTN}.temperature|{_TTN}.temperature_1|{_TTN}.temp"),
        "humidity": At(f"{_TTN}.humidity|{_TTN}.relative_humidity_2|{_TTN}.relative_humidity"),
        "pressure": At(f"{_TTN}.pressure|{_TTN}.barometric_pressure_3|{_TTN}.barometric_pressure"),
        "pm2_5": At(f"{_TTN}.pm2_5|{_TTN}.pm25"),
        "pm10": At(f"{_TTN}.pm10"),
        "noise": At(f"{_TTN}.noise|{_TTN}.laeq"),
    },
)

ZIGBEE2MQTT = Source(
    name="zigbee2mqtt",
    contract=SENSORS,
    description="Zigbee devices by Zigbee2MQTT. Set `advanced.last_seen: ISO_8601` there; without it, a reading has "
    "the time of its arrival. A device may have slashes in its name (`kitchen/sensor 1`). With `output: "
    "attribute`, a reading has the time of its arrival; with `attribute_and_json`, each reading comes twice.",
    documentation="https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html",
    sample='{"temperature": 27.34, "humidity": 44.72, "battery": 95, "voltage": 3000, "linkquality": 120, '
    '"last_seen": "2026-11-27T10:00:00.000Z"}',
    mqtt="zigbee2mqtt/<device#>",
    ignored_topics=r"zigbee2mqtt(/bridge(/.*)?|/.+/(availability|(set|get)(/.*)?))?",
    has_attribute_topics=True,
    is_optional=True,
    names={"device": Part("device")},
    fields={"timestamp": At("last_seen", default=ARRIVED), "sensor_id": Joined("{device}_{type}")},
    measures={
        "temperature": At("temperature"),
        "humidity": At("humidity"),
        "pressure": At("pressure"),
        "pm2_5": At("pm25"),
        "pm10": At("pm10"),
    },
)

_TASMOTA_SENSORS = ("AM2301", "BME280", "BMP280", "DHT11", "DS18B20", "HTU21", "SHT3X", "SI7021")


def _tasmota(name: str, words: tuple[str, ...], unit: str) -> Source:
    def at(quantity: str, unit: str | None = None) -> Value:
        return At("|".join(f"{sensor}.{quantity}" for sensor in _TASMOTA_SENSORS), unit=unit)

    return Source(
        name=name,
        contract=SENSORS,
        description=f"Devices with Tasmota that report temperatures in {unit} (SetOption8). Their clock is local.",
        documentation="https://tasmota.github.io/docs/AM2301/",
        sample='{"Time": "2019-01-01T00:00:00", "AM2301": {"Temperature": 24.6, "Humidity": 58.2}, "TempUnit": "'
        + words[0]
        + '"}',
        mqtt="tele/<device>/SENSOR",
        is_optional=True,
        when={"TempUnit": words},
        names={"device": Part("device")},
        fields={"timestamp": At("Time", zone=CITY_ZONE), "sensor_id": Joined("{device}_{type}")},
        measures={
            "temperature": at("Temperature", unit),
            "humidity": at("Humidity"),
            "pressure": At("BME280.Pressure|BMP280.Pressure"),
            "voltage": At("ENERGY.Voltage"),
            "current": At("ENERGY.Current"),
        },
    )


TASMOTA = _tasmota("tasmota", ("C", ""), "°C")
TASMOTA_FAHRENHEIT = _tasmota("tasmota_fahrenheit", ("F",), "°F")


def _community(*types: str) -> str:
    return "|".join(f"sensordatavalues[value_type={name}].value" for name in types)


SENSOR_COMMUNITY = Source(
    name="sensor_community",
    contract=SENSORS,
    description="Stations of Sensor.Community (Luftdaten), which send to their own API: set it to "
    "POST /ingest/sensor_community.",
    documentation="https://github.com/opendata-stuttgart/meta/wiki/APIs",
    sample='{"esp8266id": "1234567", "software_version": "NRZ-2020-133", "sensordatavalues": '
    '[{"value_type": "SDS_P1", "value": "14.77"}, {"value_type": "SDS_P2", "value": "7.12"}, '
    '{"value_type": "BME280_temperature", "value": "21.50"}, {"value_type": "BME280_pressure", "value": "98925.31"}, '
    '{"value_type": "BME280_humidity", "value": "48.23"}, {"value_type": "signal", "value": "-61"}]}',
    names={"device": At("esp8266id")},
    fields={"timestamp": Arrived(), "sensor_id": Joined("{device}_{type}")},
    measures={
        "pm10": At(_community("SDS_P1", "PMS_P1", "SPS30_P1")),
        "pm2_5": At(_community("SDS_P2", "PMS_P2", "SPS30_P2")),
        "temperature": At(_community("BME280_temperature", "BMP280_temperature", "temperature")),
        "humidity": At(_community("BME280_humidity", "humidity")),
        "pressure": At(_community("BME280_pressure", "BMP280_pressure"), unit="Pa"),
    },
    accepts=frozenset({"text"}),
)


_KINDS = ("AirQualityObserved", "WeatherObserved", "NoiseLevelObserved", "EnvironmentObserved")
_DEVICE = "refDevice.value|refPointOfInterest.value|stationCode.value|id"


def _attribute(name: str, unit: str) -> At:
    """Returns the value of an attribute, in the unit of its unitCode. Without one, it is in the data model's `unit`."""
    return At(f"{name}.value", unit=unit, unit_at=f"{name}.unit", units=UNIT_CODES)


NGSI = Source(
    name="ngsi",
    contract=SENSORS,
    description="Observations of the Smart Data Models (FIWARE) in every form of NGSI-LD and NGSI v2: normalized, "
    "concise, simplified, temporal, expanded JSON-LD and GeoJSON; an entity, a list, or a broker's notification. A "
    "value has the time of its `observedAt`, or of the entity's `dateObserved`: of an interval, its end.",
    documentation="https://github.com/smart-data-models/dataModel.Weather/tree/master/WeatherObserved",
    sample='{"id": "Valladolid.2016-11-30T07-00-00.00Z", "type": "WeatherObserved", "dateObserved": '
    '{"type": "DateTime", "value": "2016-11-30T07:00:00.00Z"}, "temperature": {"type": "Number", "value": 3.3}, '
    '"atmosphericPressure": {"type": "Number", "value": 938.9}, "windSpeed": {"type": "Number", "value": 2}, '
    '"location": {"type": "geo:json", "value": {"type": "Point", "coordinates": [-4.754444444, 41.640833333]}}, '
    '"refDevice": {"type": "Text", "value": "device-0A3478"}, "relativeHumidity": {"type": "Number", "value": 0.15}}',
    format="ngsi",
    items=ENTITIES,
    names={"device": At(_DEVICE), "kind": At("type", words={kind: kind for kind in _KINDS})},
    fields={
        "timestamp": At("observedAt.value|dateObserved.value|dateObservedTo.value|TimeInstant.value|notifiedAt.value"),
        "sensor_id": Joined("{device}_{type}"),
        "location": At("areaServed.value"),
        "latitude": At("location.value.coordinates.1"),
        "longitude": At("location.value.coordinates.0"),
    },
    measures={
        "temperature": _attribute("temperature", unit="°C"),
        "humidity": _attribute("relativeHumidity", unit="1"),
        "pressure": _attribute("atmosphericPressure", unit="hPa"),
        "precipitation": At("precipitation.value"),
        "wind": _attribute("windSpeed", unit="m/s"),
        "pm2_5": _attribute("pm25", unit="µg/m³"),
        "pm10": _attribute("pm10", unit="µg/m³"),
        "air_quality": At("airQualityIndex.value"),
        "noise": _attribute("LAeq", unit="dB"),
    },
)

_OPENAQ = {"pm25": "pm2_5", "pm10": "pm10", "temperature": "temperature", "relativehumidity": "humidity"}
_OPENAQ_UNITS = {"µg/m³": "µg/m³", "c": "°C", "%": "%"}

OPENAQ = Source(
    name="openaq",
    contract=SENSORS,
    description="The newest values of a location's sensors from OpenAQ v3: the URL is "
    "`https://api.openaq.org/v3/locations/<id>/sensors`, with CITY_FEED_HEADERS for the key (`X-API-Key: …`). Gases "
    "(O₃, NO₂, SO₂, CO) are left out.",
    documentation="https://docs.openaq.org/resources/sensors",
    sample='{"meta": {"name": "openaq-api", "page": 1, "limit": 100, "found": 2}, "results": [{"id": 3917, "name": '
    '"o3 ppm", "parameter": {"id": 10, "name": "o3", "units": "ppm", "displayName": "O₃"}, "latest": {"datetime": '
    '{"utc": "2025-04-28T20:00:00Z", "local": "2025-04-28T14:00:00-06:00"}, "value": 0.067, "coordinates": '
    '{"latitude": 35.1353, "longitude": -106.584702}}}, {"id": 3919, "name": "pm25 µg/m³", "parameter": {"id": 2, '
    '"name": "pm25", "units": "µg/m³", "displayName": "PM2.5"}, "latest": {"datetime": {"utc": '
    '"2025-04-28T20:00:00Z", "local": "2025-04-28T14:00:00-06:00"}, "value": 5.4, "coordinates": {"latitude": '
    '35.1353, "longitude": -106.584702}}}]}',
    items="results",
    names={"number": At("id")},
    fields={
        "timestamp": At("latest.datetime.utc"),
        "sensor_id": Joined("openaq_{number}"),
        "type": At("parameter.name", words=_OPENAQ, skips=True),
        "value": At("latest.value"),
        "unit": At("parameter.units", words=_OPENAQ_UNITS),
        "latitude": At("latest.coordinates.latitude"),
        "longitude": At("latest.coordinates.longitude"),
    },
)

SOURCES = (
    CITY_TRAFFIC,
    CITY_ENVIRONMENT,
    CITY_UTILITY,
    THE_THINGS_STACK,
    ZIGBEE2MQTT,
    TASMOTA,
    TASMOTA_FAHRENHEIT,
    SENSOR_COMMUNITY,
    NGSI,
    OPENAQ,
)
