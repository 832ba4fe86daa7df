"""The embedded MQTT broker in its own process, and its clients."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.publish import single

from city.net import accepts
from city.stack.embedded import await_running, free_ports
from city.stack.part import Part, Spec


class Broker(NamedTuple):
    port: int
    pid: int
    log: Path


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Broker]:
    """The broker in its own process."""
    (port,) = free_ports(1)
    argv = [sys.executable, "-m", "city.stack.mqtt_broker", "127.0.0.1", str(port)]
    part = Part(Spec("mqtt", f"127.0.0.1:{port}", argv, ready=lambda: accepts("127.0.0.1", port)), folder)
    part.start()
    try:
        await_running(part)
        assert part.pid
        yield Broker(port, part.pid, part.log)
    finally:
        part.signal()
        part.await_stop()


class Client:
    """A connected client, and the topics of the messages that it has received. Its will is retained, and of QoS 2."""

    def __init__(self, port: int, client_id: str, clean: bool, will: str | None) -> None:
        self.topics: list[str] = []
        self.session_present = False
        self._connected, self._subscribed = threading.Event(), threading.Event()
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, clean, reconnect_on_failure=False)
        if will:
            self.paho.will_set(will, b"x", 2, retain=True)
        self.paho.on_message = lambda client, data, message: self.topics.append(message.topic)
        self.paho.on_connect = self._on_connect
        self.paho.on_subscribe = lambda *_: self._subscribed.set()
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        assert self._connected.wait(20)

    def _on_connect(self, client: mqtt.Client, data: object, flags: mqtt.ConnectFlags, *_: object) -> None:
        self.session_present = flags.session_present
        self._connected.set()

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        self._subscribed.clear()
        self.paho.subscribe(topic_filter, qos)
        assert self._subscribed.wait(20)


@contextlib.contextmanager
def client(broker: Broker, client_id: str = "", clean: bool = True, will: str | None = None) -> Iterator[Client]:
    made = Client(broker.port, client_id, clean, will)
    try:
        yield made
    finally:
        made.paho.disconnect()
        made.paho.loop_stop()


def publish_retained(broker: Broker, topic: str, qos: int = 1) -> None:
    single(topic, b"x", qos, retain=True, hostname="127.0.0.1", port=broker.port)
