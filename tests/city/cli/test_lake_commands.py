"""The commands for tables, alarms, schemas and forgetting."""

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from city.alerts.dispatch import deliver
from city.alerts.model import Finding
from city.alerts.store import alert_store
from city.cli.errors import mendable
from city.cli.main import app
from city.settings import Settings
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.commands import city, fails
from tests.lakes import drive, stream

BEGIN = datetime(2026, 5, 4, 12, tzinfo=UTC)


def test_every_error_that_a_person_can_mend_is_still_where_it_was() -> None:
    mends = dict(mendable())
    assert {"ContractError", "JarError", "KafkaException", "QuestDBError", "TopicReset"} <= mends.keys()
    assert all(issubclass(kind, Exception) for kind in mends.values())


def test_tables_are_built_and_looked_at(config: Settings) -> None:
    stream(config.lake, VEHICLE_POSITIONS, drive(BEGIN, 1), BEGIN + timedelta(hours=2))
    assert "there is nothing in gold/traffic_cells_hourly yet" in fails("table", "gold/traffic_cells_hourly")
    day = ("--first", "2026-05-04", "--last", "2026-05-04")
    built = city("build", "traffic_cells_daily", "traffic_cells_hourly", *day)
    assert "gold/traffic_cells_daily" in built
    assert " rows, version 1, 1 files" in city("table", "gold/traffic_cells_hourly")
    known = "no table or layer 'nothing'; known: "
    assert known in fails("build", "nothing", "--first", "2026-05-04", "--last", "2026-05-04")
    assert "before --first" in fails("build", "gold", "--first", "2026-05-04", "--last", "2026-05-03")


def test_alarms_are_looked_after(config: Settings) -> None:
    assert "no alarms" in city("alerts", "list")
    alert_store(config).sync_findings([Finding("check/a/b", "error", "a is wrong", "a")], "check/")
    assert json.loads(city("alerts", "list", "--json"))[0]["title"] == "a is wrong"
    assert "error" in city("alerts", "list")
    assert "active, acknowledged" in city("alerts", "ack", "1", "--by", "ada", "--note", "mine")
    assert "bo's" in city("alerts", "assign", "1", "bo")
    assert "silence 1" in city("alerts", "silence", "check/*", "--hours", "2")
    assert "check/*" in city("alerts", "silences")
    city("alerts", "unsilence", "1")
    assert "check/*" not in city("alerts", "silences")
    assert "cleared, acknowledged" in city("alerts", "clear", "1")
    assert "acknowledged  ada  mine" in city("alerts", "history", "1")
    assert "no alarm 9" in fails("alerts", "ack", "9")


def test_a_channel_that_was_taken_out_is_one_line_and_its_messages_can_be_dropped(config: Settings) -> None:
    mailed = config.model_copy(update={"alert_email_to": ["ada@city"]})
    known = alert_store(mailed)
    known.sync_findings(
        [Finding(f"check/a/{number}", "error", "a is wrong", f"a/{number}") for number in range(3)], "check/"
    )
    deliver(known, config)
    (line,) = [line for line in city("alerts", "list").splitlines() if "email" in line]
    assert line.startswith("channel email: 3 message(s) wait since ")
    assert line.endswith(
        "(1 attempts: the channel 'email' is no longer in the settings, and has messages to send: "
        "set it again, or drop them: city alerts drop email)"
    )
    result = CliRunner().invoke(app, ["alerts", "drop", "email"], input="n\n")
    assert result.exit_code == 1
    assert "3 message(s) wait since" in result.output
    assert city("alerts", "drop", "email", "--yes", "--by", "ada") == "3 message(s) to email are deleted\n"
    assert "email" not in city("alerts", "list")
    assert "dropped  ada  1 message(s) to email, not sent" in city("alerts", "history", "1")
    assert "no message waits for the channel 'email'" in fails("alerts", "drop", "email")


def test_keys_are_listed_whatever_an_earlier_version_took(config: Settings) -> None:
    city("keys", "add", "ada", "--days", "2")
    assert "a key cannot be valid for nan days" in fails("keys", "add", "eve", "--days", "nan")
    file = config.home / "serving" / "keys.json"
    known = json.loads(file.read_text())
    (caller,) = known.values()
    others = {str(days): caller | {"name": f"{days:g}", "expires": days * 86_400} for days in (1e9, math.nan)}
    file.write_text(json.dumps(known | others))
    listed = city("keys", "list").splitlines()
    assert [line for line in listed if "ada" in line and " UTC" in line]
    assert len([line for line in listed if "never" in line]) == 2


@pytest.mark.parametrize("hours", ["1e9", "inf", "nan", "0", "-inf"])
def test_a_silence_without_an_end_is_refused(config: Settings, hours: str) -> None:
    said = fails("alerts", "silence", "check/*", "--hours", hours)
    assert said == f"--hours {float(hours):g}: a silence lasts more than 0 and at most 8784 hours, a year"


def test_what_silences_or_assigns_nothing_is_said(config: Settings) -> None:
    alert_store(config).sync_findings([Finding("check/a/b", "error", "a is wrong", "a")], "check/")
    assert city("alerts", "silence", "check/*") == "silence 1: check/* for 1 hours\n"
    assert "it matches the cause of no alarm that is open now" in city("alerts", "silence", "nothing/here")
    assert "a silence needs a pattern of causes, such as 'check/gold/*'" in fails("alerts", "silence", "")
    assert "alarm 1 needs the name of a person" in fails("alerts", "assign", "1", "")


@pytest.mark.parametrize("title", ["no model [/GB]", "each is a table [[rule]] with a name", "[red]"])
def test_an_alarm_is_listed_as_it_is_called(config: Settings, title: str) -> None:
    alert_store(config).sync_findings([Finding("check/a/b", "error", title, "a")], "check/")
    assert title in city("alerts", "list")
    assert title in city("alerts", "history", "1")


def test_a_vehicle_is_forgotten(config: Settings) -> None:
    stream(config.lake, VEHICLE_POSITIONS, drive(BEGIN, 1), BEGIN + timedelta(hours=2))
    assert "there is no data about vehicle 'nobody'" in city("forget", "vehicle", "nobody")
    said = city("forget", "vehicle", "v1", "--yes")
    assert "bronze/vehicle_positions: " in said
    assert "erased" in said
    assert "there is no data about" in city("forget", "vehicle", "v1")


def test_the_help_of_forget_names_what_the_contracts_know(config: Settings) -> None:
    assert "card, machine, payment, sensor, vehicle" in city("forget", "--help")


def test_a_store_that_cannot_be_looked_through_is_not_without_the_id(config: Settings) -> None:
    (config.home / "questdb").mkdir()
    said = CliRunner().invoke(app, ["forget", "vehicle", "v1", "--yes"], catch_exceptions=False)
    assert "not searched: questdb/vehicle_positions: " in said.output
    assert "not yet: questdb/vehicle_positions: " in said.output
    assert "v1" not in said.output
    assert said.exit_code == 1


def test_schemas_are_checked(config: Settings) -> None:
    assert "every contract is compatible with its released schema" in city("schemas", "check")
    assert "set CITY_SCHEMA_REGISTRY_URL" in fails("schemas", "publish")
