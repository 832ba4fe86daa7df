"""The command line, as a person uses it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from pydantic import ValidationError

from city.cli.errors import explain
from city.cli.main import main
from city.contracts.registry import contracts
from city.file_lock import file_lock
from city.settings import Settings, settings
from city.stack.history_progress import history_status
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.city.stack.histories import end_process, write_progress
from tests.commands import city, fails
from tests.live import fresh, send, until

SUCH_AS = "; such as https://hooks.example.org/city"
SCHEME = f"it begins with neither https:// nor http://{SUCH_AS}"
NO_HOST = f"it has no host, or has spaces{SUCH_AS}"
NO_PORT = f"its host or its port is invalid{SUCH_AS}"
RUN = [sys.executable, "-m", "city.cli.main"]


def test_every_command_has_its_help() -> None:
    listed = city("--help")
    for name in ("up", "status", "down", "stream", "simulate", "replay", "sql", "table", "bench", "doctor", "data"):
        assert name in listed
        assert "Usage" in city(name, "--help")


def test_status_before_anything_ran(config: Settings) -> None:
    nothing = {contract.topic: 0 for contract in contracts()}
    empty = {"parts": {}, "leftovers": {}, "bronze_rows": nothing, "quarantined": nothing, "alarm_channels": {}}
    assert json.loads(city("status", "--json")) == empty | {"history": None}
    assert "not up; start it with `city up`" in city("status")
    assert "nothing to stop" in city("down")


def test_the_status_has_the_progress_of_the_history(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no history" in city("history", "status")
    write_progress(config, 62)
    assert json.loads(city("status", "--json"))["history"]["percent"] == 62
    for words in (["status"], ["history", "status"]):
        assert "62 % of 14 days, table vehicle_speeds" in city(*words)
    end_process(config)
    off = "62 % of 14 days, and no start continues it: no history is wanted: CITY_HISTORY_DAYS is 0"
    assert off in city("history", "status")
    monkeypatch.setenv("CITY_HISTORY_DAYS", "14")
    settings.cache_clear()
    assert "stopped at 62 % of 14 days" in city("history", "status")


def test_a_city_that_gets_no_history_says_why(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fails("history", "run") == "no history is wanted: CITY_HISTORY_DAYS is 0"
    assert not (config.home / "history").exists()
    monkeypatch.setenv("CITY_HISTORY_DAYS", "14")
    settings.cache_clear()
    assert "there is no history: the next `city up` with simulators makes it" in city("history", "status")
    (config.lake / "bronze").mkdir(parents=True)
    reason = f"this city has events of its own since {config.lake}/bronze exists, so it gets no history"
    assert fails("history", "run") == reason
    assert f"there is no history: {reason}" in city("history", "status")


def test_a_second_process_leaves_the_report_of_the_first_alone(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITY_HISTORY_DAYS", "14")
    settings.cache_clear()
    write_progress(config, 62)
    (config.home / "history").mkdir(parents=True)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    with file_lock(config.home / "history" / "run"):
        assert "makes the history already" in fails("history", "run")
    status = history_status(config)
    assert status is not None
    assert (status["percent"], status["error"]) == (62, None)


def test_what_is_wrong_is_said_in_one_line(config: Settings) -> None:
    assert fails("stream", "moon") == "no domain 'moon'; known: environment, equipment, payments, traffic"
    assert fails("up", "--domain", "moon") == "no domain 'moon'; known: environment, equipment, payments, traffic"
    assert "known: alarms, anomaly, batch, canary, city, crash, decode, drift, e2e" in fails("bench", "moon")
    assert "no contract 'moon'" in fails("table", "moon")
    assert "no table 'gold/sensors'; known: " in fails("table", "gold/sensors")
    assert "there is nothing in bronze/sensors yet" in fails("table", "sensors")
    assert "refused" in fails("sql", "SELECT 1")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HOME", __file__, f"CITY_HOME: {__file__} is not a folder"),
        ("HOME", f"{__file__}/below", f"CITY_HOME: {__file__} is not a folder"),
        ("TIMEZONE", "Mars/X", "CITY_TIMEZONE: no time zone 'Mars/X'; such as Europe/Berlin"),
        ("COUNTRY", "XX", "CITY_COUNTRY: the package holidays has no country 'XX'; use a code such as US or DE"),
        ("EXTRA_DOMAINS", '["/none"]', "CITY_EXTRA_DOMAINS: there is no folder /none"),
        ("TLS_CERT", "/none.pem", "CITY_TLS_CERT: there is no file /none.pem"),
        ("ALERT_WEBHOOK_URL", "127.0.0.1:9911/hook", f"CITY_ALERT_WEBHOOK_URL: {SCHEME}"),
        ("ALERT_SLACK_URL", "hooks.slack.com/services/T0", f"CITY_ALERT_SLACK_URL: {SCHEME}"),
        ("ALERT_SMS_URL", "ftp://gateway", f"CITY_ALERT_SMS_URL: {SCHEME}"),
        ("ALERT_PAGERDUTY_URL", "https:///v2", f"CITY_ALERT_PAGERDUTY_URL: {NO_HOST}"),
        ("ALERT_WEBHOOK_URL", "http://[::1/hook", f"CITY_ALERT_WEBHOOK_URL: {NO_PORT}"),
        ("ALERT_WEBHOOK_URL", "http://a:b/hook", f"CITY_ALERT_WEBHOOK_URL: {NO_PORT}"),
        ("SERVE_PORT", "99999", "CITY_SERVE_PORT: Input should be less than or equal to 65535"),
        (
            "DOMAINS",
            "traffic",
            'CITY_DOMAINS: a JSON list or object is expected, such as ["one", "two"] or {"one": "two"}',
        ),
        ("LATENCY_SECONDS", "0", "CITY_LATENCY_SECONDS: Input should be greater than or equal to 0.1"),
    ],
)
def test_a_setting_that_is_wrong_is_named_as_it_was_given(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CITY_{name}", value)
    with pytest.raises(Exception) as error:  # noqa: PT011
        Settings()
    assert explain(error.value) == said


@pytest.mark.parametrize("name", ["RATE_LIMIT", "ALERT_SLACK_URL"])
def test_a_setting_that_is_wrong_is_not_shown_for_it_may_be_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where Dagster logs the error itself."""
    monkeypatch.setenv(f"CITY_{name}", "hunter2")
    with pytest.raises(ValidationError) as error:
        Settings()
    assert "hunter2" not in f"{explain(error.value)} {error.value}"


def test_a_channel_without_an_address_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITY_ALERT_WEBHOOK_URL", "")
    assert not Settings().alert_webhook_url


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    assert explain(KeyError("x")) is None


def test_the_process_exits_with_one_line(
    config: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["city", "stream", "moon"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert capsys.readouterr().err == "city: no domain 'moon'; known: environment, equipment, payments, traffic\n"


def test_status_is_quick(config: Settings) -> None:
    """Against the same Python doing nothing but its imports of a data frame: no heavy library is on its way."""
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    commands = {
        "ours": [*RUN, "status", "--json"],
        "peer": [sys.executable, "-c", "import dagster, polars, confluent_kafka"],
    }
    for name in ("ours", "peer", "ours", "peer"):
        began = time.perf_counter()
        subprocess.run(commands[name], check=True, capture_output=True)
        seconds[name].append(time.perf_counter() - began)
    assert min(seconds["ours"]) < min(seconds["peer"])


def test_a_domain_is_streamed_queried_and_looked_at(stack: Settings) -> None:
    send(stack, VEHICLE_POSITIONS, *fresh(5), b"{broken")
    stream = subprocess.Popen([*RUN, "stream", "traffic"], env=os.environ, stderr=subprocess.PIPE)
    try:
        until(lambda: json.loads(city("status", "--json"))["bronze_rows"]["vehicle_positions"] >= 5)
        until(lambda: json.loads(city("status", "--json"))["quarantined"]["vehicle_positions"] >= 1)
        query = "SELECT vehicle_id, speed FROM vehicle_positions WHERE vehicle_id = 'v3' LIMIT 1"
        until(lambda: {"v3", "30.5"} <= set(re.findall(r"[\w.]+", city("sql", query))))
        until(lambda: json.loads(city("status", "--json"))["parts"]["stream"]["state"] == "running")
        assert [line for line in city("status").splitlines() if re.match(r"\W*stream\b.*\brunning\b", line)]
        assert f"a stream runs already (pid {stream.pid})" in fails("stream", "payments")
    finally:
        stream.send_signal(signal.SIGINT)
        assert stream.wait(30) == 0
    assert "rows, version" in city("table", "vehicle_positions", "--rows", "2")
    assert "not JSON" in city("table", "quarantine/vehicle_positions")
    assert city("sql", "CREATE TABLE IF NOT EXISTS cli_test (a INT)").strip() == "ok"


def test_a_server_whose_port_is_in_use_says_by_whom(config: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", config.serve_port))
        other.listen()
        said = fails("serve")
    assert f"port {config.serve_port} is in use by" in said
    assert "set CITY_SERVE_PORT to a free port" in said


def test_simulators_run_until_they_are_interrupted(stack: Settings) -> None:
    for domain in ("traffic", "environment"):
        process = subprocess.Popen([*RUN, "simulate", domain, "--rate", "200"], env=os.environ)
        beat = stack.run / f"simulator-{domain}.json"
        until(lambda beat=beat: json.loads(beat.read_text())["events"] > 100)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_docs_and_doctor(config: Settings) -> None:
    assert "docs/contracts.md" in city("docs")
    assert "ok  Java" in city("doctor")
