"""Real servers with TLS and logins: what works, and what people are told where it does not. Prints the matrix."""

import base64
import contextlib
import ssl
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from deltalake import write_deltalake
from pydantic import SecretStr

from city import questdb
from city.alerts.store import alert_store
from city.certificates import find_expiry
from city.contracts.model import ContractError
from city.contracts.schema_registry import SchemaRegistry
from city.features.online import RedisStore, Row
from city.kafka import KafkaServer
from city.lake.location import ColdStorageError, cold_location
from city.models.registry import Registry
from city.mqtt import MqttServer
from city.questdb import QuestDBError, QuestDBServer
from city.settings import Settings, settings
from city.stack.embedded import settings_at
from city.stack.external import check_logins
from city.stack.part import CannotStart
from city.streaming.bronze import BronzeStream
from city.streaming.sinks.questdb import QuestDBSink, ensure_tables
from city.streaming.topics import MissingTopics, ensure_topics
from city_assets.traffic.contract import VEHICLE_POSITIONS
from resources.kafka import KafkaResource
from tests import s3_server, secured
from tests.city.contracts.test_compatibility import Registry as SchemaServer
from tests.events import NOW, position
from tests.lakes import stream
from tests.live import until
from tests.secured import PASSWORD, STRANGER, TOKEN, URL_PASSWORD, USER, Authority, SecuredKafka


@dataclass
class Matrix:
    """Rows that the tests add: server, protocol, mechanism, result."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, server: str, protocol: str, mechanism: str, result: str) -> None:
        self.rows.append((server, protocol, mechanism, result))

    def show(self) -> None:
        rows = [("server", "protocol", "mechanism", "result"), *sorted(self.rows)]
        widths = [max(len(row[n]) for row in rows) for n in range(3)]
        print("\n")
        for row in rows:
            print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]))


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    made = Matrix()
    yield made
    made.show()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SecuredKafka]:
    folder = tmp_path_factory.mktemp("secured")
    config = settings_at(folder, settings().cache_folder)
    with secured.tokens() as url, secured.secured_kafka(config, folder, authority, url) as server:
        yield server


LOGINS = [
    ("PLAINTEXT", None),
    ("SSL", None),
    ("SASL_PLAINTEXT", "PLAIN"),
    ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
    ("SASL_SSL", "PLAIN"),
    ("SASL_SSL", "SCRAM-SHA-256"),
    ("SASL_SSL", "SCRAM-SHA-512"),
    ("SASL_SSL", "OAUTHBEARER"),
]


@pytest.mark.parametrize(("security", "mechanism"), LOGINS)
def test_both_clients_of_kafka_log_in(
    kafka: SecuredKafka, matrix: Matrix, monkeypatch: pytest.MonkeyPatch, security: str, mechanism: str | None
) -> None:
    server = kafka.plain if security == "PLAINTEXT" else kafka.server(security, mechanism)
    contract = replace(VEHICLE_POSITIONS, topic=f"matrix-{uuid.uuid4().hex}", windows=(), partitions=1)
    ensure_topics(server, [contract])
    producer = Producer(server.options())
    producer.produce(contract.topic, b"a message")
    assert producer.flush(20) == 0
    consumer = Consumer(server.options({"group.id": contract.topic, "auto.offset.reset": "earliest"}))
    consumer.subscribe([contract.topic])
    try:
        message = until(lambda: consumer.poll(0.5))
        assert message.value() == b"a message", message.error()
    finally:
        consumer.close()
    monkeypatch.setattr("resources.kafka.settings", lambda: Given(server))
    resource = KafkaResource(address=str(server))
    assert resource.ends(contract.topic) == {0: 1}
    assert resource.read(contract.topic, {0: 0}, {0: 1}).values == [b"a message"]
    assert server.complaint() is None
    matrix.add("Kafka", security, mechanism or ("client certificate" if security == "SSL" else "none"), "works")


@dataclass(frozen=True)
class Given:
    kafka: KafkaServer


def refused(server: KafkaServer) -> str:
    complaint = server.complaint(seconds=6)
    assert complaint is not None
    assert server.refusal(seconds=6) is not None, "it is told at the start too"
    assert PASSWORD not in complaint
    return complaint


@pytest.mark.parametrize(
    ("security", "mechanism", "change", "expected"),
    [
        ("SASL_SSL", "SCRAM-SHA-512", {"password": "wrong"}, "check CITY_KAFKA_MECHANISM, CITY_KAFKA_USERNAME and"),
        ("SASL_SSL", "PLAIN", {"username": "nobody"}, "check CITY_KAFKA_MECHANISM, CITY_KAFKA_USERNAME and"),
        ("SASL_SSL", "SCRAM-SHA-512", {"ca": None}, "set CITY_KAFKA_CA to the certificate of the authority"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-512", {}, "CITY_KAFKA_MECHANISM is SCRAM-SHA-512, which this Kafka does not"),
        (
            "SASL_SSL",
            "SCRAM-SHA-512",
            {"security": "SASL_PLAINTEXT"},
            "this port speaks TLS: set CITY_KAFKA_SECURITY to SSL or SASL_SSL",
        ),
        ("SASL_PLAINTEXT", "PLAIN", {"security": "SASL_SSL"}, "this port has no TLS: set CITY_KAFKA_SECURITY to"),
    ],
)
def test_a_login_that_fails_is_explained(
    kafka: SecuredKafka, matrix: Matrix, security: str, mechanism: str, change: dict[str, Any], expected: str
) -> None:
    reason = refused(kafka.server(security, mechanism, **change))
    assert expected in reason, reason
    changed = ", ".join(f"{name} {value}" for name, value in change.items()) or "not offered"
    matrix.add("Kafka", security, f"{mechanism}, {changed}", "told: …" + expected[:60])


def test_an_expired_certificate_is_named(kafka: SecuredKafka, matrix: Matrix, authority: Authority) -> None:
    certificate, key = authority.sign("expired", timedelta(hours=-1))
    reason = refused(kafka.server("SSL", certificate=certificate, key=key))
    assert "Kafka refuses CITY_KAFKA_CERT: check its date" in reason, reason
    ssl = {"kafka_address": "kafka:9093", "kafka_security": "SSL", "kafka_key": key}
    assert f"the certificate {certificate} expired on 20" in refusal(**ssl, kafka_cert=certificate)
    bundle = certificate.with_name("bundle.pem")
    bundle.write_bytes(certificate.read_bytes() + authority.file.read_bytes())
    assert find_expiry(bundle, is_authority=True) is None, "one of its authorities is valid"
    with pytest.raises(ValueError, match="has no certificate in PEM"):
        Settings(_env_file=None, kafka_ca=key)  # type: ignore[call-arg]
    matrix.add("Kafka", "SSL", "expired client certificate", "told at the start, with its date")


def test_a_refusing_acl_is_named(kafka: SecuredKafka, matrix: Matrix) -> None:
    server = kafka.server("SASL_SSL", "SCRAM-SHA-512", username=STRANGER)
    contract = replace(VEHICLE_POSITIONS, topic=f"matrix-{uuid.uuid4().hex}", windows=())
    with pytest.raises(KafkaException) as error:
        ensure_topics(server, [contract])
    explanation = server.explain(error.value.args[0])
    assert f"an ACL of Kafka refuses it to the user {STRANGER}" in explanation
    matrix.add("Kafka", "SASL_SSL", "SCRAM-SHA-512, an ACL refuses", f"told: {explanation[:60]}")


def test_topics_that_exist_stay_and_others_are_not_created_where_the_city_may_not(kafka: SecuredKafka) -> None:
    contract = replace(VEHICLE_POSITIONS, topic=f"matrix-{uuid.uuid4().hex}", windows=(), partitions=2)
    server = replace(kafka.server("SASL_SSL", "PLAIN"), creates_topics=False)
    with pytest.raises(
        MissingTopics, match=f"has no topic .*{contract.topic}.*: create them, or set CITY_KAFKA_CREATE"
    ):
        ensure_topics(server, [contract])
    makes = replace(server, creates_topics=True, topic_config=(("max.message.bytes", "1000000"),), replication=-1)
    ensure_topics(makes, [contract])
    ensure_topics(server, [contract])
    ensure_topics(replace(makes, topic_config=()), [replace(contract, partitions=9)])
    monkey = KafkaResource(address=str(kafka.plain))
    assert sorted(monkey.ends(contract.topic)) == [0, 1]


@pytest.fixture(scope="module")
def mqtt(tmp_path_factory: pytest.TempPathFactory, authority: Authority, matrix: Matrix) -> Iterator[dict[str, str]]:
    programs = secured.mosquitto()
    if programs is None:
        matrix.add("MQTT", "TLS", "password, client certificate", "not tried: mosquitto is not installed")
        pytest.skip("mosquitto is not installed")
    with secured.secured_mqtt(tmp_path_factory.mktemp("mqtt"), authority, programs) as server:
        yield server


@pytest.fixture
def registry() -> Iterator[SchemaServer]:
    server = SchemaServer()
    yield server
    server.server.shutdown()


def exchanged(server: MqttServer) -> list[bytes]:
    """What one client receives of another, by the filter of the server's group."""
    received: list[bytes] = []
    reader, writer = server.client(f"r{uuid.uuid4().hex}", lasting=True), server.client(f"w{uuid.uuid4().hex}")
    reader.on_connect = lambda client, *_: client.subscribe(server.subscription("matrix/#"), 1)
    reader.on_message = lambda client, data, message: received.append(message.payload)
    ready: list[int] = []
    reader.on_subscribe = lambda *_: ready.append(1)
    for client in (reader, writer):
        server.connect(client, lasting=client is reader)
        client.loop_start()
    try:
        until(lambda: ready and writer.is_connected())
        writer.publish("matrix/one", b"a message", 1).wait_for_publish(10)
        until(lambda: received)
    finally:
        for client in (reader, writer):
            client.disconnect()
            client.loop_stop()
    return received


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("kind", ["password", "certificate"])
def test_a_broker_with_tls(mqtt: dict[str, str], matrix: Matrix, authority: Authority, kind: str, version: str) -> None:
    certificate, key = authority.sign("bridge")
    login = {"username": USER, "password": PASSWORD} if kind == "password" else {"certificate": certificate, "key": key}
    server = MqttServer(mqtt[kind], ca=authority.file, version=version, **login)  # type: ignore[arg-type]
    assert exchanged(server) == [b"a message"]
    if version == "5":
        assert exchanged(replace(server, group=uuid.uuid4().hex)) == [b"a message"]
    matrix.add("MQTT", f"TLS, MQTT {version}", kind, "works")


def test_a_broker_that_refuses_is_explained(mqtt: dict[str, str], matrix: Matrix, authority: Authority) -> None:
    right = MqttServer(mqtt["password"], USER, PASSWORD, ca=authority.file)
    stranger = replace(right, ca=None, tls=True)
    client = stranger.client("x")
    with pytest.raises(OSError, match="certificate verify failed") as error:
        stranger.connect(client)
    assert "set CITY_MQTT_CA" in right.explain(error.value)
    codes: list[Any] = []
    wrong = replace(right, password="wrong")
    client = wrong.client("y")
    client.on_connect = lambda client, data, flags, code, properties: codes.append(code)
    wrong.connect(client)
    client.loop_start()
    try:
        until(lambda: codes)
    finally:
        client.loop_stop()
    assert "check CITY_MQTT_USERNAME and CITY_MQTT_PASSWORD" in wrong.explain(codes[0])
    assert "check CITY_MQTT_USERNAME and CITY_MQTT_PASSWORD" in str(wrong.refusal())
    assert "set CITY_MQTT_CA" in str(stranger.refusal())
    assert right.refusal() is None
    assert replace(right, address="127.0.0.1:1").refusal() is None, "it is away, and may come"
    matrix.add("MQTT", "TLS", "wrong password, unknown authority", "told: check CITY_MQTT_…")


def test_a_questdb_that_wants_a_token(stack: Settings, matrix: Matrix, authority: Authority) -> None:
    contract = replace(VEHICLE_POSITIONS, name=f"m{uuid.uuid4().hex[:12]}", windows=(), cells=())
    with secured.login_proxy(str(stack.questdb), authority) as address:
        server = QuestDBServer(address, token=TOKEN, tls=True, ca=authority.file)
        ensure_tables(server, contract)
        stream(stack.lake, contract, [position()], NOW)
        bronze = BronzeStream(stack.lake, contract)
        bronze.load([0])
        sink = QuestDBSink(contract, server, bronze)
        sink.open({})
        rows = pl.read_delta(str(bronze.path))
        sink.apply(rows, {0: 0}, lambda: {})
        sink.close()
        until(lambda: questdb.rows(server, f"SELECT count() FROM {contract.name}") == [[1]])
        with pytest.raises(QuestDBError, match="refuses the login .*check CITY_QUESTDB_TOKEN"):
            questdb.rows(replace(server, token="wrong"), "SELECT 1")
        with pytest.raises(OSError, match="certificate verify failed"):
            questdb.rows(replace(server, ca=None), "SELECT 1")
        assert server.refusal() is None
        assert "refuses the login" in str(replace(server, token="wrong").refusal())
        assert "set CITY_QUESTDB_CA" in str(replace(server, ca=None).refusal())
    matrix.add("QuestDB", "TLS, behind a proxy", "token", "works; a wrong one is told")


def test_an_expired_certificate_of_a_server_is_not_taken_for_an_unknown_one(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "certificate verify failed: certificate has expired"

    def fail(*_: Any) -> None:
        raise requests.exceptions.SSLError(text)

    monkeypatch.setattr(questdb, "execute", fail)
    assert "its certificate has expired: renew it" in str(QuestDBServer("h:1", tls=True).refusal())
    assert "the broker's certificate has expired" in MqttServer("h:1").explain(ssl.SSLCertVerificationError(1, text))
    assert "a certificate has expired: renew it" in KafkaServer("h:1", "SSL").explain(KafkaError(KafkaError._SSL, text))
    matrix.add("all", "TLS", "expired certificate of the server", "told: renew it")


def test_a_schema_registry_that_wants_a_login(registry: SchemaServer, matrix: Matrix, authority: Authority) -> None:
    wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with secured.login_proxy(f"127.0.0.1:{registry.server.server_port}", authority, wanted) as address:
        client = SchemaRegistry(f"https://{address}", (USER, PASSWORD), authority.file)
        assert client.publish(VEHICLE_POSITIONS) == 1
        with pytest.raises(ContractError, match="refuses the login .*check CITY_SCHEMA_REGISTRY_USERNAME") as error:
            SchemaRegistry(f"https://{address}", (USER, "wrong"), authority.file).publish(VEHICLE_POSITIONS)
        assert "wrong" not in str(error.value)
        given = {"schema_registry_url": f"https://{address}", "schema_registry_username": USER}
        assert "check CITY_SCHEMA_REGISTRY_USERNAME" in refusal(
            **given, schema_registry_password="wrong", schema_registry_ca=authority.file
        )
        assert "set CITY_SCHEMA_REGISTRY_CA" in refusal(**given, schema_registry_password=PASSWORD)
    matrix.add("schema registry", "TLS, behind a proxy", "password", "works; a wrong one is told")


def test_a_redis_that_wants_a_password(matrix: Matrix, tmp_path: Path) -> None:
    with secured.redis(tmp_path) as url:
        store = RedisStore(url)
        until(lambda: _written(store))
        assert store.read("v", ["k"]) == [Row(5, {"a": 1})]
        check_logins(given(redis_url=url))
        assert "check the user and the password in CITY_REDIS_URL" in refusal(
            redis_url=url.replace(URL_PASSWORD, "wrong")
        )
    matrix.add("Redis", "TCP", "password", "works")


def _written(store: RedisStore) -> bool:
    with contextlib.suppress(Exception):  # it is starting
        store.write("v", ["k"], [5], [b'{"a": 1}'])
        return True
    return False


def test_a_postgresql_that_wants_a_password(
    matrix: Matrix, tmp_path_factory: pytest.TempPathFactory, config: Settings
) -> None:
    programs = secured.postgres_programs()
    if programs is None:
        matrix.add("PostgreSQL", "TCP", "SCRAM-SHA-256", "not tried: it is not installed")
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("postgres") / "data"
    with secured.postgres(folder, programs) as sql:
        right = config.model_copy(update={"alerts_url": SecretStr(f"postgresql://{sql}/alarms")})
        assert alert_store(right).tick() == []
        wrong = right.model_copy(
            update={"alerts_url": SecretStr(f"postgresql://{USER}:wrong@{sql.partition('@')[2]}/alarms")}
        )
        with pytest.raises(Exception, match="password authentication failed") as error:
            alert_store(wrong).tick()
        assert ":wrong@" not in str(error.value)
        check_logins(given(alerts_url=f"postgresql://{sql}/alarms", dagster_postgres_url=f"postgresql://{sql}/dagster"))
        password = "check the user and the password in CITY_ALERTS_URL"
        assert password in refusal(alerts_url=f"postgresql://{USER}:wrong@{sql.partition('@')[2]}/alarms")
        assert "has no such database or user: create it, or mend CITY_DAGSTER_POSTGRES_URL" in refusal(
            dagster_postgres_url=f"postgresql://{sql}/nowhere"
        )
        assert "disagree about TLS" in refusal(alerts_url=f"postgresql://{sql}/alarms?sslmode=require")
        _ask_mlflow_on(f"postgresql+psycopg2://{sql}/mlflow", tmp_path_factory.mktemp("mlflow"))
    matrix.add("PostgreSQL", "TCP", "SCRAM-SHA-256", "works for alarms and MLflow; a wrong password is told")


def _ask_mlflow_on(database: str, folder: Path) -> None:
    with secured.mlflow(folder, database) as address:
        registry = Registry(given(mlflow_url=f"http://{address}"))
        registry.create_experiment()
        assert registry.at("machine_life") is None


def test_an_mlflow_that_wants_a_login(matrix: Matrix, tmp_path: Path, authority: Authority) -> None:
    with secured.mlflow(tmp_path) as server, secured.login_proxy(server, authority) as address:
        config = given(mlflow_url=f"https://{address}", mlflow_token=TOKEN, mlflow_ca=authority.file)
        check_logins(config)
        with pytest.MonkeyPatch.context() as environment:
            for name in config.mlflow_environment:
                environment.setenv(name, "")
            registry = Registry(config)
            registry.create_experiment()
            assert registry.at("machine_life") is None
        login = refusal(mlflow_url=f"https://{address}", mlflow_token="wrong", mlflow_ca=authority.file)
        assert "refuses the login (HTTP 401): check CITY_MLFLOW_USERNAME" in login
        assert "set CITY_MLFLOW_CA" in refusal(mlflow_url=f"https://{address}", mlflow_token=TOKEN)
    assert "wrong" not in login
    matrix.add("MLflow", "TLS, behind a proxy", "token", "works; a wrong one is told")


def given(**settings: object) -> Settings:
    return Settings(_env_file=None, **settings)  # type: ignore[call-arg, arg-type]


def refusal(**settings: object) -> str:
    with pytest.raises(CannotStart) as error:
        check_logins(given(**settings))
    assert PASSWORD not in str(error.value)
    return str(error.value)


def test_an_s3_that_wants_an_access_key(matrix: Matrix, tmp_path: Path) -> None:
    if not s3_server.is_installed():
        matrix.add("S3", "HTTP", "access key", f"not tried: {s3_server.ABSENT}")
        pytest.skip(s3_server.ABSENT)
    with s3_server.s3_server(tmp_path) as s3:
        right = Settings(_env_file=None, **s3.settings())  # type: ignore[call-arg, arg-type]
        place = cold_location(right)
        write_deltalake(f"{place}/matrix", pl.DataFrame({"a": [1]}), storage_options=place.options)
        assert pl.scan_delta((place / "matrix").open()).collect().rows() == [(1,)]
        assert place.refusal() is None
        for change, expected in (
            ({"cold_secret_key": "wrong"}, "check CITY_COLD_ACCESS_KEY and CITY_COLD_SECRET_KEY"),
            ({"cold": "s3://absent/cold"}, "there is no bucket absent: create it, or correct CITY_COLD"),
            ({"cold_endpoint": "http://127.0.0.1:1"}, "check CITY_COLD_ENDPOINT, and whether the server runs"),
        ):
            wrong = Settings(_env_file=None, **(s3.settings() | change))  # type: ignore[call-arg, arg-type]
            with pytest.raises(ColdStorageError) as error:
                (cold_location(wrong) / "matrix").open()
            assert expected in str(error.value)
            matrix.add("S3", "HTTP", ", ".join(f"{k} {v}" for k, v in change.items()), f"told: …{expected[:60]}")
    matrix.add("S3", "HTTP", "access key", "works")
