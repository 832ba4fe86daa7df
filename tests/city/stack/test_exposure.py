"""Which addresses the platform's servers are bound to."""

import socket
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from pydantic import ValidationError

from city.net import split_address
from city.settings import Settings
from city.stack import servers
from city.stack.doctor import examine
from city.stack.part import CannotStart, Part, Spec
from city.stack.specs import exposures, specs
from city.stack.supervisor import Supervisor

ALL = "0.0.0.0"
OWN = {
    "kafka": ("kafka_host", "read, write and delete every topic"),
    "questdb": ("questdb_host", "read, change and drop every table"),
    "mqtt": ("mqtt_host", "read every reading and send any"),
    "dagster": ("dagster_host", "start and stop every run"),
}


def bound(config: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of each part its command line, environment and configuration files, as they are before it starts."""
    monkeypatch.setattr(servers, "_format_storage", lambda *_: None)  # Kafka's storage takes Java some seconds
    monkeypatch.setattr(servers, "classpath", lambda *_: "jars")
    addresses = {}
    for spec in specs(config):
        spec.prepare()
        addresses[spec.name] = " ".join([*spec.argv, *(f"{name}={value}" for name, value in spec.environment.items())])
    for name, file in (("kafka", "kafka/server.properties"), ("mqtt", "mosquitto/mosquitto.conf")):
        path = config.home / file
        addresses[name] += path.read_text() if path.exists() else ""
    return addresses


@pytest.mark.parametrize("mosquitto", [None, "/usr/sbin/mosquitto"])
def test_the_host_is_the_servers_alone(
    config: Settings, monkeypatch: pytest.MonkeyPatch, mosquitto: str | None
) -> None:
    monkeypatch.setattr(servers.shutil, "which", lambda *_, **__: mosquitto)
    config = config.model_copy(update={"host": ALL})
    addresses = bound(config, monkeypatch)
    assert [name for name, text in addresses.items() if ALL in text] == []  # the server reads its settings itself
    assert all("127.0.0.1" in addresses[name] for name in OWN)
    assert {spec.name: spec.host for spec in specs(config) if spec.ports} == {
        **dict.fromkeys(OWN, "127.0.0.1"),
        "server": ALL,
    }
    assert exposures(specs(config)) == []
    assert config.wants_keys


@pytest.mark.parametrize("mosquitto", [None, "/usr/sbin/mosquitto"])
@pytest.mark.parametrize("name", OWN)
def test_each_other_server_has_its_own_setting_which_warns(
    config: Settings, monkeypatch: pytest.MonkeyPatch, name: str, mosquitto: str | None
) -> None:
    setting, means = OWN[name]
    monkeypatch.setattr(servers.shutil, "which", lambda *_, **__: mosquitto)
    address = "192.0.2.7"
    config = config.model_copy(update={setting: address})
    addresses = bound(config, monkeypatch)
    reached = {"mqtt": {"mqtt", "mqtt-bridge"}}.get(name, {name})
    assert {part for part, text in addresses.items() if address in text} <= reached
    assert address in addresses[name]
    (warning,) = exposures(specs(config))
    assert warning.startswith(f"CITY_{setting.upper()}={address}: ")
    assert means in warning
    with pytest.raises(CannotStart, match=f"CITY_{setting.upper()}: {address} is no address of this machine"):
        Supervisor(config, [spec for spec in specs(config) if spec.name == name]).check()


def test_the_controller_of_kafka_is_never_exposed(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    bound(config.model_copy(update={"kafka_host": "192.0.2.7"}), monkeypatch)
    properties = (config.home / "kafka" / "server.properties").read_text()
    assert f"CONTROLLER://127.0.0.1:{config.kafka_controller_port}" in properties
    assert f"advertised.listeners=PLAINTEXT://192.0.2.7:{config.kafka_port}" in properties


def test_this_machine_reaches_a_server_that_is_bound_to_every_address(config: Settings) -> None:
    everywhere: dict[str, Any] = {f"{name}_host": ALL for name in ("questdb", "mqtt", "dagster")}
    config = config.model_copy(update=everywhere)
    for address in (str(config.questdb), str(config.mqtt), config.dagster):
        assert address.startswith("127.0.0.1:")
    for wildcard in (ALL, "::"):
        with pytest.raises(ValidationError, match="give the one address that they reach"):
            Settings(kafka_host=wildcard)


def test_addresses_of_ipv6_are_urls(config: Settings) -> None:
    hosts: dict[str, Any] = dict.fromkeys(("host", "kafka_host", "mqtt_host", "dagster_host"), "::1")
    config = config.model_copy(update=hosts)
    assert str(config.kafka) == f"[::1]:{config.kafka_port}"
    for url in (config.serve, *(f"http://{address}" for address in (config.kafka, config.mqtt, config.dagster))):
        parts = urlsplit(url)
        assert parts.hostname == "::1"
        assert split_address(parts.netloc) == ("::1", parts.port)
    everywhere = config.model_copy(update=dict.fromkeys(hosts, "::"))
    for address in (everywhere.serve.removeprefix("http://"), str(everywhere.mqtt), everywhere.dagster):
        assert split_address(address)[0] == "::1"


def test_kafkas_controller_port_is_looked_at_where_it_is_bound(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine of several addresses another one's port may be taken, and this one's free."""
    monkeypatch.setattr(servers, "classpath", lambda *_: "jars")
    config = config.model_copy(update={"kafka_host": "127.0.0.2"})
    kafka = [spec for spec in specs(config) if spec.name == "kafka"]
    with socket.socket() as other:
        other.bind(("127.0.0.2", config.kafka_controller_port))
        other.listen()
        Supervisor(config, kafka).check()
    with socket.socket() as other:
        other.bind(("127.0.0.1", config.kafka_controller_port))
        other.listen()
        with pytest.raises(CannotStart, match="CITY_KAFKA_CONTROLLER_PORT"):
            Supervisor(config, kafka).check()
        finding = next(f for f in examine(config) if f.what == f"port {config.kafka_controller_port}")
        assert not finding.ok


def test_an_external_server_is_not_warned_of(config: Settings) -> None:
    config = config.model_copy(update={"kafka_address": "kafka.example.org:9092", "kafka_host": "192.0.2.7"})
    assert exposures(specs(config)) == []
    assert exposures([Spec("x", "", ["x"], host="localhost", exposes="do anything")]) == []


def test_running_servers_listen_on_loopback(stack: Settings, stack_parts: tuple[Settings, dict[str, Part]]) -> None:
    for name, part in stack_parts[1].items():
        process = part._process
        assert process is not None
        listening = [c for c in psutil.Process(process.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}, name
