"""Describes Apache Kafka, QuestDB and an MQTT broker as parts: command lines, configuration and readiness."""

import base64
import http.client
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from city.java import java
from city.java.jars import classpath
from city.kafka import KafkaServer
from city.net import accepts, join_address, split_address
from city.settings import Settings
from city.stack.part import Spec

_FEW_ARENAS = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""By default glibc keeps up to eight arenas of freed memory per core."""

_POLARS_MEMORY = {"_RJEM_MALLOC_CONF": "narenas:2,dirty_decay_ms:100,muzzy_decay_ms:0"}
"""The same for jemalloc, Polars' allocator. It returns memory that has been free for a tenth of a second."""

_SLEEPY_WORKERS = {
    f"QDB_{pool}_WORKER_{state}_THRESHOLD": times
    for pool in ("SHARED", "WAL_APPLY")
    for state, times in (("NAP", "100"), ("SLEEP", "200"))
}
"""By default an idle worker yields 10,000 times before it sleeps (for 10 ms). With some work every 100 ms it never
sleeps."""

_SMALL_POOLS = {
    "QDB_CAIRO_LEXER_POOL_CAPACITY": "64",
    "QDB_CAIRO_EXPRESSION_POOL_CAPACITY": "256",
    "QDB_CAIRO_COLUMN_POOL_CAPACITY": "128",
    "QDB_CAIRO_MODEL_POOL_CAPACITY": "16",
    "QDB_CAIRO_WRITER_DATA_INDEX_VALUE_APPEND_PAGE_SIZE": "1m",
    "QDB_CAIRO_WRITER_DATA_APPEND_PAGE_SIZE": "1m",
}
"""By default QuestDB allocates the objects of a thousand queries in advance for each of its compilers (110 MB), and
maps and writes 16 MB for each column and each index of an open partition (1.2 GB of disk for a city). These pools grow
with the queries, and pages are added to a column when it needs them."""

_LOG4J = """\
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1} - %m%n
"""


def python(config: Settings) -> dict[str, str]:
    """Returns the environment of Python processes that live long, or are started often.

    Where Python must not write its bytecode beside the sources, and the packages were installed without bytecode, each
    process compiles all that it imports. That is more than half of the start time of a Dagster run. In this case the
    bytecode goes to the cache folder.
    """
    memory = _FEW_ARENAS | _POLARS_MEMORY
    if not sys.dont_write_bytecode:
        return memory
    folder = config.cache_folder / "bytecode"
    return memory | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder)}


def _heap_options(megabytes: int) -> list[str]:
    """Returns Java options for a heap that starts small and returns unused memory.

    By default the heap starts with a 64th of the machine's memory, and the first collection comes when all of it is
    used.
    """
    ratios = ["-XX:MinHeapFreeRatio=20", "-XX:MaxHeapFreeRatio=40"]
    return ["-Xms48m", f"-Xmx{megabytes}m", "-XX:+UseSerialGC", *ratios]


def kafka(config: Settings) -> Spec:
    """Returns the spec of a single Kafka node: broker and controller in one, without ZooKeeper."""
    if config.kafka_address:
        return Spec("kafka", str(config.kafka))
    folder = config.home / "kafka"
    properties, log4j = folder / "server.properties", folder / "log4j2.properties"
    # Java's second compiler takes a third of Kafka's CPU time in the first minute, and does not raise the throughput.
    options = [*_heap_options(384), "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={log4j}"]
    return Spec(
        "kafka",
        str(config.kafka),
        argv=[java(), "-cp", classpath(config, "kafka"), *options, "kafka.Kafka", str(properties)],
        environment=_FEW_ARENAS,
        prepare=lambda: _prepare_kafka(config, folder, properties, log4j),
        ready=lambda: _is_kafka_ready(str(config.kafka)),
        stop_seconds=20,
        ports={"CITY_KAFKA_PORT": config.kafka_port, "CITY_KAFKA_CONTROLLER_PORT": config.kafka_controller_port},
        host=config.kafka_host,
        loopback_ports=frozenset({"CITY_KAFKA_CONTROLLER_PORT"}),
        host_setting="CITY_KAFKA_HOST",
        exposes="read, write and delete every topic",
    )


def questdb(config: Settings) -> Spec:
    """Returns the spec of QuestDB."""
    if config.questdb_address:
        return Spec("questdb", config.questdb.url)
    folder = config.home / "questdb"
    environment = {
        "QDB_HTTP_BIND_TO": join_address(config.questdb_host, config.questdb_http_port),
        "QDB_PG_NET_BIND_TO": join_address(config.questdb_host, config.questdb_pg_port),
        "QDB_LINE_TCP_ENABLED": "false",
        "QDB_LINE_UDP_ENABLED": "false",
        "QDB_HTTP_MIN_ENABLED": "false",
        "QDB_METRICS_ENABLED": "false",
        "QDB_TELEMETRY_ENABLED": "false",
        "QDB_SHARED_WORKER_COUNT": "2",
        # Only errors: a log line for each statement and transaction takes a twentieth of a core at 500 events a second.
        "QDB_LOG_W_STDOUT_LEVEL": "ERROR",
        **_SLEEPY_WORKERS,
        **_SMALL_POOLS,
        **_FEW_ARENAS,
    }
    options = _heap_options(512)
    main = "io.questdb/io.questdb.ServerMain"
    return Spec(
        "questdb",
        config.questdb.url,
        argv=[java(), *options, "-p", classpath(config, "questdb"), "-m", main, "-d", str(folder)],
        environment=environment,
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        ready=lambda: _is_questdb_ready(str(config.questdb)),
        ports={"CITY_QUESTDB_HTTP_PORT": config.questdb_http_port, "CITY_QUESTDB_PG_PORT": config.questdb_pg_port},
        host=config.questdb_host,
        host_setting="CITY_QUESTDB_HOST",
        exposes="read, change and drop every table",
    )


def mqtt(config: Settings) -> Spec:
    """Returns the spec of an MQTT broker: Mosquitto where it is installed, otherwise amqtt.

    A killed Mosquitto restarts with its state of some seconds before, and a killed amqtt restarts empty.
    """
    if config.mqtt_address:
        return Spec("mqtt", str(config.mqtt))
    folder = config.home / "mosquitto"
    installed = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    own = [sys.executable, "-m", "city.stack.mqtt_broker", config.mqtt_host, str(config.mqtt_port)]
    return Spec(
        "mqtt",
        str(config.mqtt),
        argv=[installed, "-c", str(folder / "mosquitto.conf")] if installed else own,
        environment=python(config),
        prepare=lambda: _prepare_mosquitto(config, folder) if installed else None,
        ready=lambda: accepts(*split_address(str(config.mqtt))),
        ports={"CITY_MQTT_PORT": config.mqtt_port},
        host=config.mqtt_host,
        host_setting="CITY_MQTT_HOST",
        exposes="read every reading and send any",
    )


def _prepare_mosquitto(config: Settings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mosquitto.conf").write_text(
        f"listener {config.mqtt_port} {config.mqtt_host}\nallow_anonymous true\nuser root\n"
        f"persistence true\npersistence_location {folder}/\nautosave_interval 2\nmax_queued_messages 100000\n"
        # The default of twenty unacknowledged messages is the limit for one turn of the bridge.
        "max_inflight_messages 200\n"
    )


def _prepare_kafka(config: Settings, folder: Path, properties: Path, log4j: Path) -> None:
    """Writes the configuration, and formats the storage once, as `StorageTool format --standalone` does."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    # The broker is the controller's only client.
    controller = f"127.0.0.1:{config.kafka_controller_port}"
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
                "offsets.topic.num.partitions": 1,
                "transaction.state.log.replication.factor": 1,
                "transaction.state.log.min.isr": 1,
                "group.initial.rebalance.delay.ms": 0,
                "message.max.bytes": 20_971_520,
                "replica.fetch.max.bytes": 20_971_520,
                "log.retention.hours": 48,
                "log.segment.bytes": 268_435_456,
                # Kafka allocates this at the start, also where there is nothing to compact: 128 MiB by default.
                "log.cleaner.dedupe.buffer.size": 4_194_304,
                "num.network.threads": 2,
                "num.io.threads": 2,
            }.items()
        )
        + "\n"
    )
    log4j.write_text(_LOG4J)
    meta = data / "meta.properties"
    if not meta.exists():
        _format_storage(config, properties)


def _format_storage(config: Settings, properties: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    command = [java(), "-cp", classpath(config, "kafka"), "kafka.tools.StorageTool", "format"]
    # One id in sixty-four begins with "-". As a separate argument it would be read as an option.
    command += [f"--cluster-id={cluster}", f"--config={properties}"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(
            f"Kafka's storage at {properties.parent} cannot be formatted: {result.stderr or result.stdout}"
        )


def _is_kafka_ready(address: str) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    if not accepts(*split_address(address)):
        return False
    try:
        admin = AdminClient(KafkaServer(address).options())
        return bool(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _is_questdb_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(*split_address(address), timeout=2)
    try:
        connection.request("GET", "/exec?query=SELECT%201")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
