"""Settings of servers: secrets from files, and what is refused before a server is asked."""

import json
from pathlib import Path

import pytest

from city.cli.errors import explain
from city.kafka import KafkaServer
from city.settings import Settings
from city.stack.dagster import dagster
from city.stack.embedded import environment
from city.stack.unknown_settings import unknown_settings

SASL = {"kafka_address": "kafka:9093", "kafka_security": "SASL_SSL", "kafka_mechanism": "SCRAM-SHA-512"}

FEED = {"feeds": {"gtfs": "https://feeds.example.org/vehicles.pb"}}


def given(**settings: object) -> Settings:
    return Settings(_env_file=None, **settings)  # type: ignore[call-arg, arg-type]


def test_a_secret_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("open sesame\n")
    monkeypatch.setenv("CITY_KAFKA_PASSWORD_FILE", str(tmp_path / "secret"))
    config = given(**SASL, kafka_username="city")
    assert config.kafka.password == "open sesame"
    assert "sesame" not in f"{config!r} {config.kafka!r} {config.kafka}"
    monkeypatch.setenv("CITY_KAFKA_PASSWORD", "of the environment")
    assert given(**SASL, kafka_username="city").kafka.password == "of the environment"
    monkeypatch.delenv("CITY_KAFKA_PASSWORD")
    monkeypatch.setenv("CITY_KAFKA_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="CITY_KAFKA_PASSWORD_FILE: .*none: No such file or directory"):
        given(**SASL, kafka_username="city")
    assert unknown_settings(["CITY_KAFKA_PASSWORD_FILE", "CITY_MQTT_PASSWORD_FILE"]) == {}
    assert list(unknown_settings(["CITY_KAFKA_USERNAME_FILE"])) == ["CITY_KAFKA_USERNAME_FILE"]


def test_another_process_gets_the_secrets() -> None:
    config = given(**SASL, **FEED, kafka_username="city", kafka_password="open sesame")
    assert environment(config)["CITY_KAFKA_PASSWORD"] == "open sesame"
    assert json.loads(environment(config)["CITY_FEEDS"]) == FEED["feeds"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kafka_security": "SSL"}, "CITY_KAFKA_SECURITY needs CITY_KAFKA_ADDRESS: the embedded Kafka has no"),
        (SASL | {"kafka_mechanism": None}, "CITY_KAFKA_SECURITY is SASL_SSL: set CITY_KAFKA_MECHANISM"),
        (SASL | {"kafka_security": "SSL"}, "CITY_KAFKA_MECHANISM needs SASL_PLAINTEXT or SASL_SSL"),
        (SASL, "SASL needs CITY_KAFKA_USERNAME and CITY_KAFKA_PASSWORD (or CITY_KAFKA_PASSWORD_FILE)"),
        (
            SASL | {"kafka_mechanism": "OAUTHBEARER", "kafka_username": "c", "kafka_password": "s"},
            "OAUTHBEARER needs CITY_KAFKA_TOKEN_URL",
        ),
        (
            {"kafka_username": "city", "kafka_password": "p"},
            "CITY_KAFKA_USERNAME and CITY_KAFKA_PASSWORD need CITY_KAFKA_SECURITY=SASL_SSL (or SASL_PLAINTEXT)",
        ),
        ({"kafka_password": "p"}, "CITY_KAFKA_USERNAME and CITY_KAFKA_PASSWORD need CITY_KAFKA_SECURITY=SASL_SSL"),
        ({"kafka_address": "kafka:9092,"}, "CITY_KAFKA_ADDRESS: address '' is not of the form host:port"),
        ({"questdb_password": "p"}, "CITY_QUESTDB_USERNAME and CITY_QUESTDB_PASSWORD belong together"),
        ({"schema_registry_password": "p"}, "CITY_SCHEMA_REGISTRY_USERNAME and CITY_SCHEMA_REGISTRY_PASSWORD belong"),
        ({"mlflow_url": "https://city:p@mlflow"}, "CITY_MLFLOW_URL has a login, and addresses are shown"),
        ({"feeds": {"gtfs": "file:///etc/passwd"}}, "CITY_FEEDS: the URL of gtfs: it begins with neither https:// nor"),
        ({"feeds": {"gtfs": "https://[bad"}}, "CITY_FEEDS: the URL of gtfs: its host or its port is invalid"),
        ({"feed_headers": {"gtfs": "x-key: …"}}, "CITY_FEED_HEADERS: the header of gtfs is not `name: value` in ASCII"),
        ({"mqtt_tls": True}, "CITY_MQTT_TLS, CITY_MQTT_CA and CITY_MQTT_CERT need CITY_MQTT_ADDRESS"),
        ({"mqtt_password": "p"}, "CITY_MQTT_PASSWORD needs CITY_MQTT_USERNAME"),
        ({"questdb_tls": True}, "CITY_QUESTDB_TLS and CITY_QUESTDB_CA need CITY_QUESTDB_ADDRESS"),
        ({"mqtt_key": "KEY"}, "CITY_MQTT_CERT and CITY_MQTT_KEY belong together"),
        ({"kafka_key": "none.key"}, "CITY_KAFKA_KEY: there is no file none.key"),
        (
            {"feeds": {"gtfs_vehicles": "ftp://x/vehicles"}},
            "CITY_FEEDS: the URL of gtfs_vehicles: it begins with neither",
        ),
        ({"feeds": {"gtfs_vehicles": "https://"}}, "CITY_FEEDS: the URL of gtfs_vehicles: it has no host"),
        ({"feed_headers": {"openaq": "sesame"}}, "CITY_FEED_HEADERS: the header of openaq is not `name: value`"),
        ({"tls_cert": "KEY"}, "has no certificate in PEM"),
        ({"tls_key": "KEY"}, "CITY_TLS_CERT and CITY_TLS_KEY belong together"),
        ({"kafka_security": "TLS"}, "CITY_KAFKA_SECURITY: Input should be 'PLAINTEXT', 'SSL'"),
    ],
)
def test_what_does_not_fit_is_explained_with_the_setting(
    settings: dict[str, object], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "key").touch()
    settings = {name: str(tmp_path / "key") if value == "KEY" else value for name, value in settings.items()}
    with pytest.raises(ValueError, match="for Settings") as error:
        given(**settings)
    assert expected in str(explain(error.value))


def test_a_plain_kafka_has_no_login() -> None:
    assert KafkaServer("127.0.0.1:9092").options() == {"bootstrap.servers": "127.0.0.1:9092", "log_level": 0}
    assert KafkaServer("a:1,[::1]:2").brokers == [("a", 1), ("::1", 2)]


def test_postgresql_has_the_driver_that_dagster_installs(tmp_path: Path) -> None:
    config = given(
        home=tmp_path, dagster_postgres_url="postgresql://u:p@h/d", alerts_url="postgresql+psycopg://u:p@h/alarms"
    )
    assert config.dagster_postgres == "postgresql+psycopg2://u:p@h/d"
    assert config.alerts_store == "postgresql+psycopg://u:p@h/alarms"
    assert given(home=tmp_path).dagster_postgres is None
    environments = [spec.environment for spec in dagster(config, {})]
    assert {environment["CITY_DAGSTER_POSTGRES_URL"] for environment in environments} == {config.dagster_postgres}
