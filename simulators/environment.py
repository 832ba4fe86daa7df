"""Simulates the city's 400 sensors over MQTT: what they measure, their noise, drift and faults."""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from city.settings import Settings
from city.stack.worker import Worker
from city.streaming.heartbeat import Heartbeat
from city.streaming.topics import ensure_topics
from city_assets.environment.contract import DEVICES, QUANTITIES, SENSORS
from simulators.clock import Progress, ignore, iso, pace
from simulators.faults import DEFAULT_FAULTS, FaultRates, Faults
from simulators.history import Chunk, Span, by_day
from simulators.to_kafka import sender
from simulators.world import conditions
from simulators.world.chance import bits, normal, uniform
from simulators.world.flow import Flow
from simulators.world.local import LocalClock
from simulators.world.streets import is_land, streets, to_degrees, to_metres

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

DEFAULT_RATE = 200.0
PER_KIND = 8
"""The number of sensors of each kind at each location."""
HISTORY_SECONDS = 300.0
"""In the history, a sensor reports this often. The live rate has some 150 times as many readings."""
HISTORY_IS_SAMPLED = True
"""See `city.contracts.registry.Domain.has_sampled_history`."""
_ANNOUNCE_SECONDS = 20.0
_AROUND_METRES = 500.0
_FEW_MINUTES = 32
_CALIBRATED_SECONDS = 2 * 86_400.0
LOCATIONS = tuple(conditions.LOCATIONS)
"""The districts with sensors."""
NOISE = {
    "traffic": 6.0, "air_quality": 5.0, "noise": 3.0, "temperature": 0.6, "humidity": 3.0,
    "precipitation": 0.0, "wind": 0.5, "consumption": 12.0, "voltage": 1.0, "current": 4.0,
}  # fmt: skip
"""The standard deviation of a reading, in the unit of its kind. A rain gauge errs by a share instead."""
NORMAL = {
    "traffic": (0, 150), "air_quality": (0, 170), "noise": (36, 85), "temperature": (-16, 40), "humidity": (10, 100),
    "precipitation": (0, 60), "wind": (0, 20), "consumption": (60, 480), "voltage": (222, 236), "current": (5, 125),
}  # fmt: skip
"""The least and the most that is normal for a kind, with the noise of its sensors."""
_KINDS = tuple(NOISE)
KINDS = tuple(next(q for q in QUANTITIES if q.name == kind) for kind in _KINDS)
"""The quantities that are simulated, by the number of their kind."""
_GAUGE_SPREAD = 0.15
_DRIFT = 25.0
"""What a drifting sensor is off by before its calibration, in standard deviations of its readings."""


@dataclass(frozen=True)
class Sensors:
    """All sensors of a seed, an array each. A stuck one repeats a value, and a drifting one is more off every hour."""

    location: NDArray[np.intp]
    kind: NDArray[np.intp]
    number: NDArray[np.intp]
    bias: Floats
    is_drifting: NDArray[np.bool_]
    is_stuck: NDArray[np.bool_]
    latitude: Floats
    longitude: Floats

    def __len__(self) -> int:
        return len(self.kind)

    def sensor_id(self, sensor: int) -> str:
        """Returns the id of a sensor: <location>_<kind>_<number>."""
        return f"{LOCATIONS[self.location[sensor]]}_{_KINDS[self.kind[sensor]]}_{self.number[sensor]}"


def fleet(rates: FaultRates, seed: int) -> Sensors:
    """Builds PER_KIND sensors of each kind at each location, on land. Sensors of the same seed behave alike."""
    grid = np.meshgrid(np.arange(1, PER_KIND + 1), np.arange(len(LOCATIONS)), np.arange(len(_KINDS)), indexing="ij")
    number, location, kind = (axis.ravel() for axis in grid)
    key = np.arange(len(kind))
    noise = np.array([NOISE[name] for name in _KINDS])[kind]
    centre = np.array([to_metres(*map(np.array, conditions.LOCATIONS[name])) for name in LOCATIONS])[location]
    place = centre + _AROUND_METRES * np.stack([normal(seed, "east", key), normal(seed, "north", key)], -1)
    crossings = streets().crossings
    nearest = crossings[((place[:, None] - crossings) ** 2).sum(-1).argmin(1)]
    latitude, longitude = to_degrees(np.where(is_land(place, 10.0)[:, None], place, nearest))
    return Sensors(
        location, kind, number, noise / 2 * normal(seed, "bias", key),
        uniform(seed, "drifts", key) < rates.drifting, uniform(seed, "stuck", key) < rates.stuck,
        np.round(latitude, 6), np.round(longitude, 6),
    )  # fmt: skip


def values(sensors: Sensors, flow: Flow, which: NDArray[np.integer[Any]], seconds: Floats) -> Floats:
    """Computes the readings of sensors (n,) at moments (n,), which are seconds since 1970, in the sensors' units."""
    seconds = np.asarray(seconds, float)
    kind, seed = sensors.kind[which], flow.seed
    # A stuck sensor repeats what it read at its last calibration.
    calibrated = _CALIBRATED_SECONDS * uniform(seed, "calibrat", which)
    since = (seconds - calibrated) % _CALIBRATED_SECONDS
    moments = np.where(sensors.is_stuck[which], seconds - since, seconds)
    minutes, place = np.unique(np.floor(moments / 60) * 60, return_inverse=True)
    true = _true_values(flow, minutes)[place, sensors.location[which], kind]
    noise = np.array([NOISE[name] for name in _KINDS])[kind]
    chance = normal(seed, "reading", which, np.round(moments * 1_000).astype(np.int64))
    drift = np.where(sensors.is_drifting[which], noise * _DRIFT * since / _CALIBRATED_SECONDS, 0.0)
    gauge = np.where(kind == _KINDS.index("precipitation"), np.exp(_GAUGE_SPREAD * chance), 1.0)
    read = (true + sensors.bias[which] + drift) * gauge + noise * chance
    least, most = (np.array([getattr(q, edge) for q in KINDS])[kind] for edge in ("minimum", "maximum"))
    rounded: Floats = np.round(np.clip(read, least, most), 2)
    return rounded


def readings(
    sensors: Sensors, flow: Flow, which: NDArray[np.integer[Any]], moment: datetime
) -> Iterator[dict[str, Any]]:
    """Yields the readings of sensors at a moment, payloads of the contract `sensors`."""
    text = iso(moment)
    read = values(sensors, flow, which, np.full(len(which), moment.timestamp()))
    for sensor, value in zip(which.tolist(), read.tolist(), strict=True):
        yield {
            "timestamp": text,
            "sensor_id": sensors.sensor_id(sensor),
            "type": _KINDS[sensors.kind[sensor]],
            "location": LOCATIONS[sensors.location[sensor]],
            "value": value,
            "unit": KINDS[sensors.kind[sensor]].unit,
        }


def _true_values(flow: Flow, minutes: Floats) -> Floats:
    """Returns the true values at minutes (t,), locations and kinds, as (t, l, k)."""
    if len(minutes) <= _FEW_MINUTES:
        present = [conditions.present_conditions(flow, minute) for minute in minutes.tolist()]
        return np.concatenate([np.stack([each[name] for name in _KINDS], -1) for each in present])
    together = conditions.conditions(flow, minutes)
    return np.stack([together[name] for name in _KINDS], -1)


class Announcements:
    """The announcements of sensors, with their firmware, which is updated now and then."""

    def __init__(self, sensors: Sensors, seed: int) -> None:
        self.sensors = sensors
        key = np.arange(len(sensors))
        minor, patch = bits(seed, "minor", key) % np.uint64(4), bits(seed, "patch", key) % np.uint64(10)
        self._minor, self._patch = minor.astype(int), patch.astype(int)

    def payload(self, sensor: int, moment: datetime) -> dict[str, Any]:
        """Returns an announcement, a payload of the contract `devices`."""
        sensors = self.sensors
        kind = _KINDS[sensors.kind[sensor]]
        return {
            "timestamp": iso(moment),
            "sensor_id": sensors.sensor_id(sensor),
            "type": kind,
            "location": LOCATIONS[sensors.location[sensor]],
            "latitude": float(sensors.latitude[sensor]),
            "longitude": float(sensors.longitude[sensor]),
            "unit": KINDS[sensors.kind[sensor]].unit,
            "normal_minimum": float(NORMAL[kind][0]),
            "normal_maximum": float(NORMAL[kind][1]),
            "firmware": f"2.{self._minor[sensor]}.{self._patch[sensor]}",
        }

    def update_firmware(self, sensor: int) -> None:
        """Increments the patch number of a sensor's firmware."""
        self._patch[sensor] += 1


class Simulator:
    """Simulates all sensors of the city. Sends readings to MQTT with QoS 1, and announcements to Kafka."""

    def __init__(
        self, config: Settings, rate: float = DEFAULT_RATE, faults: float = DEFAULT_FAULTS, seed: int = 0
    ) -> None:
        self.config, self.rate = config, rate
        rates = FaultRates.scaled(faults)
        self._flow = Flow(seed, LocalClock.from_settings(config))
        self.sensors = fleet(rates, seed)
        self._chance = np.random.default_rng(seed)
        self._announcements = Announcements(self.sensors, seed)
        self._faults = Faults(rates, seed + 1, spiked="value")
        self._turn = 0
        self.heartbeat = Heartbeat(config, "simulator-environment", is_loop=True)

    def events(self, moment: datetime, count: int) -> Iterator[tuple[str, bytes]]:
        """Yields the messages of `count` readings, sensor by sensor, as (MQTT topic, message)."""
        sensors = self.sensors
        which = (self._turn + np.arange(count)) % len(sensors)
        self._turn += count
        for payload in readings(sensors, self._flow, which, moment):
            for message in self._faults.messages([payload]):
                yield f"city/sensors/{payload['location']}/{payload['type']}", message

    def run(self, stop: threading.Event, progress: Progress = ignore) -> None:
        """Sends events until `stop` is set. Waits for a broker that is unavailable."""
        client = self.config.mqtt.client("city-simulator-environment")
        client.max_queued_messages_set(10_000)
        self.config.mqtt.connect(client, wait=False)

        def run_client(worker: Worker) -> None:
            client.on_connect = lambda *_: worker.progress()
            client.on_publish = lambda *_: worker.progress(1)
            client.loop_forever(retry_first_connection=True)  # returns after `disconnect`, and reconnects by itself

        mqtt_worker = Worker("simulator-environment-mqtt", run_client, stall_seconds=float("inf")).start()
        announcer = Worker("simulator-environment-announcements", self._announce).start()

        def step(now: datetime, count: int) -> None:
            self.heartbeat.error = None if client.is_connected() else f"MQTT at {self.config.mqtt} is unavailable"
            published = 0
            if client.is_connected():
                for topic, message in self.events(now, count):
                    client.publish(topic, message, qos=1)
                    published += 1
            self.heartbeat.count(published)
            progress(published)
            self.heartbeat.beat()

        try:
            pace(self.rate, stop, step)
        finally:
            announcer.stop(5)
            mqtt_worker.stop_requested.set()
            client.disconnect()
            mqtt_worker.join(5)

    def _announce(self, worker: Worker) -> None:
        """Announces every sensor once, then three sensors with new firmware every _ANNOUNCE_SECONDS."""
        ensure_topics(self.config.kafka, [DEVICES])
        kafka, changed = sender(self.config.kafka), list(range(len(self.sensors)))
        while True:
            for sensor in changed:
                message = json.dumps(self._announcements.payload(sensor, datetime.now(UTC)))
                kafka.produce(DEVICES.topic, self.sensors.sensor_id(sensor), message.encode())
            kafka.flush(10)
            worker.progress(len(changed))
            if worker.stop_requested.wait(_ANNOUNCE_SECONDS):
                return
            changed = [int(sensor) for sensor in self._chance.choice(len(self.sensors), 3, replace=False)]
            for sensor in changed:
                self._announcements.update_firmware(sensor)


def history(config: Settings, seed: int, origin: datetime, begin: datetime, end: datetime) -> Iterator[Chunk]:
    """Yields the announcements at `origin`, and the readings from `begin` to `end`, by local days."""
    import polars as pl

    span = Span.of(config, seed, origin, begin, end)
    sensors, flow = fleet(FaultRates.scaled(span.faults), seed), Flow(seed, span.clock)
    if span.is_first:
        announcements = Announcements(sensors, seed)
        announced = pl.DataFrame([announcements.payload(sensor, origin) for sensor in range(len(sensors))])
        yield from by_day(DEVICES, span, [(span.days[0], announced.with_columns(timestamp=pl.lit(span.begin)))])
    yield from by_day(SENSORS, span, ((day, _readings(sensors, flow, day)) for day in span.days))


def _readings(sensors: Sensors, flow: Flow, day: int) -> "pl.DataFrame":
    """Computes the readings of all sensors on a local day, as rows of the contract."""
    import polars as pl

    begin, end = flow.clock.begin(day), flow.clock.begin(day + 1)
    count = len(sensors)
    offset = HISTORY_SECONDS * uniform(flow.seed, "offset", np.arange(count))
    rounds = np.arange(np.floor(begin / HISTORY_SECONDS), np.ceil(end / HISTORY_SECONDS)) * HISTORY_SECONDS
    seconds = np.round(rounds[:, None] + offset, 3).ravel()
    which = np.tile(np.arange(count), len(rounds))
    kept = (seconds >= begin) & (seconds < end)
    seconds, which = seconds[kept], which[kept]
    names = pl.DataFrame(
        {
            "sensor_id": [sensors.sensor_id(sensor) for sensor in range(count)],
            "type": [_KINDS[kind] for kind in sensors.kind],
            "location": [LOCATIONS[location] for location in sensors.location],
            "unit": [KINDS[kind].unit for kind in sensors.kind],
        }
    )
    return names[which].with_columns(
        timestamp=pl.Series(seconds), value=pl.Series(values(sensors, flow, which, seconds))
    )
