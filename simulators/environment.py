"""Simulates the city's 400 sensors over MQTT, with daily and weekly rhythm, noise, drift and faults."""

import json
import logging
import math
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import paho.mqtt.client as mqtt

from city.net import split_address
from city.settings import Settings
from city.stack.worker import Worker
from city.streaming.heartbeat import Heartbeat
from city.streaming.topics import ensure_topics
from city_assets.environment.contract import DEVICES, LOCATIONS, QUANTITIES
from simulators.clock import UTC_CLOCK, LocalClock, LocalTime, Progress, ignore, iso, pace
from simulators.faults import DEFAULT_FAULTS, FaultRates, Faults
from simulators.to_kafka import sender

log = logging.getLogger(__name__)

DEFAULT_RATE = 200.0
PER_KIND = 10
"""The number of sensors of each kind at each location."""
_ANNOUNCE_SECONDS = 20.0
# The locations are in lower Manhattan, some two kilometres apart.
_CENTRES = dict(
    zip(
        LOCATIONS,
        [(40.713, -74.006), (40.733, -74.000), (40.702, -74.012), (40.715, -73.985), (40.712, -74.022)],
        strict=True,
    )
)


@dataclass(frozen=True)
class Rhythm:
    """The daily course of a quantity, in its unit.

    The value is `mean`, plus `swing` at the `peaks` (local hours), with `noise` as its standard deviation. `weekend`
    scales the swing on Saturdays, Sundays and public holidays.
    """

    mean: float
    swing: float
    peaks: tuple[float, ...]
    noise: float
    weekend: float = 1.0

    def at(self, now: LocalTime) -> float:
        """Returns the expected value at a local time.

        Peaks are bell curves on the 24-hour circle, with a standard deviation of two hours.
        """
        distances = (min(abs(now.hour - peak), 24 - abs(now.hour - peak)) for peak in self.peaks)
        height = max(math.exp(-((d / 2.0) ** 2) / 2) for d in distances)
        return self.mean + self.swing * height * (1.0 if now.is_workday else self.weekend)


RHYTHMS = {
    "traffic": Rhythm(25, 75, (8.5, 17.5), 6, weekend=0.5),
    "air_quality": Rhythm(45, 40, (9.0, 18.5), 5, weekend=0.7),
    "noise": Rhythm(52, 18, (8.5, 18.0), 3, weekend=0.8),
    "temperature": Rhythm(12, 8, (15.0,), 0.6),
    "humidity": Rhythm(70, -20, (15.0,), 3),
    "consumption": Rhythm(180, 140, (8.0, 19.5), 12, weekend=0.9),
    "voltage": Rhythm(231, -4, (19.0,), 1),
    "current": Rhythm(40, 35, (8.0, 19.5), 4, weekend=0.9),
}


class Sensor:
    """Simulates one sensor with a bias of its own. Some sensors drift, and some are stuck at a value."""

    def __init__(
        self,
        location: str,
        kind: str,
        number: int,
        rates: FaultRates,
        chance: random.Random,
        clock: LocalClock = UTC_CLOCK,
    ) -> None:
        self.clock = clock
        self.location, self.kind, self.id = location, kind, f"{location}_{kind}_{number}"
        self.quantity = next(quantity for quantity in QUANTITIES if quantity.name == kind)
        self.rhythm = RHYTHMS[kind]
        self._random = chance
        self._bias = chance.gauss(0, self.rhythm.noise / 2)
        self._drift_per_hour = self.rhythm.noise * 2 if chance.random() < rates.drifting else 0.0
        self._stuck = chance.random() < rates.stuck
        self._stuck_at: float | None = None
        self._since: datetime | None = None
        centre = _CENTRES[location]
        self.latitude, self.longitude = (round(c + chance.uniform(-0.006, 0.006), 6) for c in centre)
        self.firmware = f"2.{chance.randrange(4)}.{chance.randrange(10)}"

    def reading(self, moment: datetime) -> dict[str, Any]:
        """Returns a reading, a payload of the contract `sensors`."""
        self._since = self._since or moment
        hours = (moment - self._since).total_seconds() / 3600
        value = self.rhythm.at(self.clock.at(moment)) + self._bias + self._drift_per_hour * hours
        value = self._random.gauss(value, self.rhythm.noise)
        value = round(min(max(value, self.quantity.minimum), self.quantity.maximum), 2)
        if self._stuck:
            self._stuck_at = value = value if self._stuck_at is None else self._stuck_at
        return {
            "timestamp": iso(moment),
            "sensor_id": self.id,
            "type": self.kind,
            "location": self.location,
            "value": value,
            "unit": self.quantity.unit,
        }

    def announcement(self, moment: datetime) -> dict[str, Any]:
        """Returns an announcement, a payload of the contract `devices`.

        The normal range reaches three standard deviations beyond the daily course.
        """
        ends = sorted((self.rhythm.mean, self.rhythm.mean + self.rhythm.swing))
        return {
            "timestamp": iso(moment),
            "sensor_id": self.id,
            "type": self.kind,
            "location": self.location,
            "latitude": self.latitude,
            "longitude": self.longitude,
            "unit": self.quantity.unit,
            "normal_minimum": max(self.quantity.minimum, ends[0] - 3 * self.rhythm.noise),
            "normal_maximum": min(self.quantity.maximum, ends[1] + 3 * self.rhythm.noise),
            "firmware": self.firmware,
        }

    def update_firmware(self) -> None:
        """Increments the patch number of the firmware."""
        major, minor, patch = self.firmware.split(".")
        self.firmware = f"{major}.{minor}.{int(patch) + 1}"


class Simulator:
    """Simulates all sensors of the city. Sends readings to MQTT with QoS 1, and announcements to Kafka."""

    def __init__(
        self, config: Settings, rate: float = DEFAULT_RATE, faults: float = DEFAULT_FAULTS, seed: int = 0
    ) -> None:
        self.config, self.rate = config, rate
        rates = FaultRates.scaled(faults)
        self._random = random.Random(seed)
        self.clock = LocalClock.from_settings(config)
        self.sensors = fleet(rates, seed, self.clock)
        self._faults = Faults(rates, seed + 1, spiked="value")
        self._turn = 0
        self.heartbeat = Heartbeat(config, "simulator-environment", is_loop=True)

    def events(self, moment: datetime, count: int) -> Iterator[tuple[str, bytes]]:
        """Yields the messages of `count` readings, sensor by sensor, as (MQTT topic, message)."""
        for _ in range(count):
            sensor = self.sensors[self._turn % len(self.sensors)]
            self._turn += 1
            for message in self._faults.messages([sensor.reading(moment)]):
                yield f"city/sensors/{sensor.location}/{sensor.kind}", message

    def run(self, stop: threading.Event, progress: Progress = ignore) -> None:
        """Sends events until `stop` is set. Waits for a broker that is unavailable."""
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="city-simulator-environment")
        client.max_queued_messages_set(10_000)
        if self.config.mqtt_username:
            secret = self.config.mqtt_password.get_secret_value() if self.config.mqtt_password else None
            client.username_pw_set(self.config.mqtt_username, secret)
        client.connect_async(*split_address(self.config.mqtt))

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
        kafka, changed = sender(self.config.kafka), self.sensors
        while True:
            for sensor in changed:
                message = json.dumps(sensor.announcement(datetime.now(UTC)))
                kafka.produce(DEVICES.topic, sensor.id, message.encode())
            kafka.flush(10)
            worker.progress(len(changed))
            if worker.stop_requested.wait(_ANNOUNCE_SECONDS):
                return
            changed = self._random.sample(self.sensors, 3)
            for sensor in changed:
                sensor.update_firmware()


def fleet(rates: FaultRates, seed: int, clock: LocalClock = UTC_CLOCK) -> list[Sensor]:
    """Builds PER_KIND sensors of each kind at each location. Sensors of the same seed behave alike."""
    chance = random.Random(seed)
    return [
        Sensor(location, quantity.name, number, rates, chance, clock)
        for number in range(1, PER_KIND + 1)
        for location in LOCATIONS
        for quantity in QUANTITIES
    ]
