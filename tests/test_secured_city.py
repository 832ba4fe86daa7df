"""A city on servers of others, all with logins: Kafka and MQTT with TLS, QuestDB with a token, PostgreSQL and Redis."""

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import Any

import polars as pl
import pytest
import requests

from city import questdb
from city.settings import Settings, settings
from city.stack.embedded import running, settings_at
from tests import secured
from tests.live import until
from tests.secured import PASSWORD, TOKEN, URL_PASSWORD, USER, Authority

CITY = [sys.executable, "-m", "city.cli.main"]
CACHE = settings().cache_folder
EXTERNAL = {"kafka", "questdb", "mqtt", "redis", "dagster-storage", "alarm-storage"}


@pytest.mark.own_servers
def test_a_city_lives_on_secured_servers_of_others(
    config: Settings, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, database = secured.mosquitto(), secured.postgres_programs()
    if programs is None or database is None:
        pytest.skip("needs mosquitto and PostgreSQL")
    folder = tmp_path_factory.mktemp("others")
    authority = Authority(folder / "authority", "authority")
    others = settings_at(folder / "home", CACHE)
    with contextlib.ExitStack() as opened:
        token_url = opened.enter_context(secured.tokens())
        kafka = opened.enter_context(secured.secured_kafka(others, folder, authority, token_url))
        opened.enter_context(running(others, "questdb"))
        proxy = opened.enter_context(secured.login_proxy(str(others.questdb), authority))
        brokers = opened.enter_context(secured.secured_mqtt(folder / "mqtt", authority, programs))
        redis_url = opened.enter_context(secured.redis(folder))
        sql = opened.enter_context(secured.postgres(folder / "postgres", database))
        secret = folder / "kafka-password"
        secret.write_text(PASSWORD + "\n")
        ca = str(authority.file)
        given = {
            "KAFKA_ADDRESS": f"127.0.0.1:{kafka.ports['SASL_SSL']}",
            "KAFKA_SECURITY": "SASL_SSL",
            "KAFKA_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_USERNAME": USER,
            "KAFKA_PASSWORD_FILE": str(secret),
            "KAFKA_CA": ca,
            "MQTT_ADDRESS": brokers["password"],
            "MQTT_USERNAME": USER,
            "MQTT_PASSWORD": PASSWORD,
            "MQTT_CA": ca,
            "MQTT_VERSION": "5",
            "QUESTDB_ADDRESS": proxy,
            "QUESTDB_TLS": "true",
            "QUESTDB_CA": ca,
            "QUESTDB_TOKEN": TOKEN,
            "REDIS_URL": redis_url,
            "DAGSTER_POSTGRES_URL": f"postgresql://{sql}/dagster",
            "ALERTS_URL": f"postgresql+psycopg2://{sql}/alarms",
        }
        for name, value in given.items():
            monkeypatch.setenv(f"CITY_{name}", value)
        wrong = subprocess.run(
            [*CITY, "up", "--detach"], env=os.environ | {"CITY_QUESTDB_TOKEN": "wrong"}, capture_output=True, text=True
        )
        assert wrong.returncode == 1
        assert "refuses the login (HTTP 401): check CITY_QUESTDB_TOKEN" in wrong.stderr
        lives(config, Settings(_env_file=None, home=config.home, serve_port=config.serve_port, cache=config.cache))  # type: ignore[call-arg]


def lives(config: Settings, own: Settings) -> None:
    try:
        started = subprocess.run([*CITY, "up", "--detach", "--rate", "50"], capture_output=True, text=True, timeout=200)
        assert started.returncode == 0, started.stderr
        counted = {name: f"SELECT count() FROM {name}" for name in ("sensors", "vehicle_positions", "payments")}
        until(lambda: all(questdb.rows(own.questdb, sql)[0][0] > 100 for sql in counted.values()), 90)
        status = json.loads(subprocess.run([*CITY, "status", "--json"], capture_output=True, check=True).stdout)
        states = {name: part["state"] for name, part in status["parts"].items()}
        assert {name for name, state in states.items() if state == "external"} == EXTERNAL
        assert set(states.values()) == {"external", "running"}, status["parts"]
        assert not any(part["last_error"] for part in status["parts"].values())
        positions = pl.read_delta(str(config.lake / "bronze" / "vehicle_positions"))
        assert positions.height > 100
        until(lambda: requests.get(f"{config.serve}/health/ready", timeout=10).ok)
        written = "".join(path.read_text(errors="replace") for path in config.logs.glob("*.log"))
        assert not [secret for secret in (PASSWORD, TOKEN, URL_PASSWORD) if secret in written]
    finally:
        ended: Any = subprocess.run([*CITY, "down"], capture_output=True, text=True, timeout=100)
        time.sleep(1)
    assert ended.stdout.strip().endswith("stopped")
