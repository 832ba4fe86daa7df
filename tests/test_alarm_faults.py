"""What goes wrong and must reach people: through real servers of each channel, into the table of tests/faults.py."""

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import requests
from aiosmtpd.controller import Controller
from confluent_kafka import Producer
from pydantic import SecretStr

from city.alerts.desk import desk
from city.alerts.dispatch import deliver
from city.alerts.reader import STATE
from city.settings import Settings
from city.stack.embedded import free_ports
from city.streaming.topics import ensure_topics
from city_assets.monitoring.alarms import RunCursor, run_findings
from tests.city.alerts.test_dispatch import Hook, Mailbox
from tests.city.serving.served import serving
from tests.faults import FaultTable
from tests.live import until


class Town:
    """An alarm desk with a Slack, a PagerDuty and a mail server of the test's own, in a city that is old enough."""

    def __init__(self, config: Settings, hook: Hook, box: Mailbox, mail: str) -> None:
        told = {
            "alert_domains_after": 0.0,
            "alert_pagerduty_least": "warning",
            "alert_slack_url": SecretStr(f"{hook.url}/slack"),
            "alert_pagerduty_key": SecretStr("the-key"),
            "alert_pagerduty_url": f"{hook.url}/pagerduty",
            "alert_email_to": ["ada@city"],
            "smtp_address": mail,
            "smtp_tls": False,
        }
        self.config = config.model_copy(update=told)
        self.hook, self.box = hook, box
        self.desk = desk(self.config)

    def told(self) -> dict[str, list[str]]:
        """What each channel has, after all that is due was sent."""
        while deliver(self.desk, self.config).sent:
            pass
        return self.heard()

    def heard(self) -> dict[str, list[str]]:
        """What each channel has."""
        return {
            "Slack": [body["text"] for body in self.hook.of("/slack")],
            "PagerDuty": [page["event_action"] for page in self.hook.of("/pagerduty")],
            "e-mail": [letter.content.decode() for letter in self.box.letters],
        }


@contextlib.contextmanager
def town_of(config: Settings) -> Iterator[Town]:
    (port,), hook, box = free_ports(1), Hook(), Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield Town(config, hook, box, f"127.0.0.1:{port}")
    finally:
        server.stop()
        hook.server.shutdown()


BEGIN = datetime.now(UTC) - timedelta(minutes=30)
SHARES = {"vibration": 0.7, "temperature": 0.2, "pressure": 0.1}


def messages(kind: str, wrong: bool) -> list[dict[str, Any]]:
    """What the stream says of a machine or card that is in trouble, and later of one that is well."""
    seconds = (0, 5) if wrong else (60, 140, 900)
    times = [{"timestamp": (BEGIN + timedelta(seconds=s)).isoformat(), "id": f"{kind}-{s}"} for s in seconds]
    of: dict[str, dict[str, Any]] = {
        "anomaly": {
            "machine_id": "press-1",
            "anomaly_score": 12.0 if wrong else 0.2,
            "threshold": 1.0,
            "is_anomaly": wrong,
            "feature_contributions": SHARES,
        },
        "remaining_life": {
            "machine_id": "press-2",
            "predicted_rul_hours": 0.05 if wrong else 2.0,
            "confidence_interval": [0.01, 0.2] if wrong else [1.5, 2.5],
            "recommended_action": "stop" if wrong else "none",
            "feature_contributions": SHARES,
        },
        "fraud": {
            "card": "card-3",
            "payment_id": "p1",
            "amount": 812.5,
            "fraud_probability": 0.9 if wrong else 0.001,
            "threshold": 0.1,
            "feature_contributions": {"amount": 0.5, "km_from_last": 0.2},
        },
    }
    return [of[kind] | {"model_version": 3} | at for at in times]


TOPICS = {"anomaly": "anomaly-detected", "remaining_life": "maintenance-predictions", "fraud": "fraud-scores"}
LABELS = {"anomaly": "machine_id", "remaining_life": "machine_id", "fraud": "card"}


def test_what_happens_to_a_machine_and_to_a_card_reaches_people_and_is_resolved(
    stack: Settings, table: FaultTable
) -> None:
    """Through the real server: messages of the stream, an alarm each, three channels, a person, and the end of it."""
    ensure_topics(stack.kafka, [], [*TOPICS.values()])
    producer = Producer({"bootstrap.servers": stack.kafka})

    def send(wrong: bool) -> None:
        for kind, topic in TOPICS.items():
            for message in messages(kind, wrong):
                producer.produce(topic, json.dumps(message).encode(), message[LABELS[kind]])
        assert producer.flush(10) == 0

    def active() -> dict[str, Any]:
        return {a.cause.split("/")[2]: a for a in town.desk.alarms() if a.active and a.cause.startswith("domain/")}

    def actions(action: str) -> set[str]:
        return {p["dedup_key"] for p in town.hook.of("/pagerduty") if p["event_action"] == action}

    with town_of(stack) as town, serving(town.config) as url:
        until(lambda: {*TOPICS.values()} <= {*(town.desk.remembered(STATE) or {"topics": ()})["topics"]})
        began = time.monotonic()
        send(wrong=True)
        until(lambda: active().keys() == TOPICS.keys(), 20)
        found = active()
        keys = {f"city-{town.desk.id}-{alarm.id}" for alarm in found.values()}
        until(lambda: keys <= actions("trigger") and len(town.heard()["e-mail"]) == len(town.heard()["Slack"]) == 3, 20)
        took = time.monotonic() - began
        assert took < 10
        for kind, alarm in found.items():
            assert next(iter(alarm.detail["contributions"])) == ("amount" if kind == "fraud" else "vibration")
            assert alarm.labels[LABELS[kind]] in alarm.title
            assert any(alarm.title[:40] in said for said in town.heard()["Slack"])
            told = requests.post(f"{url}/api/alarms/{alarm.id}/acknowledge", json={"note": "on it"}, timeout=10)
            assert told.json()["acknowledged"]
        until(lambda: keys <= actions("acknowledge"), 20)
        send(wrong=False)
        until(lambda: not active() and keys <= actions("resolve"), 20)
        for kind, alarm in found.items():
            table.add(f"{alarm.labels[LABELS[kind]]}: {kind}", alarm.title, took, 0, "Slack, e-mail, PagerDuty")


def test_a_training_that_fails_is_told_and_resolved_by_one_that_succeeds(config: Settings, table: FaultTable) -> None:
    with town_of(config) as town:
        _fail_and_succeed(town, table)


def _fail_and_succeed(town: Town, table: FaultTable) -> None:
    broken = True

    @dg.asset(key=["models", "life"])
    def life() -> None:
        if broken:
            raise ValueError("12 rows are too few: give at least 2,000")

    with dg.DagsterInstance.ephemeral(settings={"run_retries": {"enabled": True}}) as instance:
        dg.materialize([life], instance=instance, raise_on_error=False)
        began = time.monotonic()
        found, cursor = run_findings(instance, RunCursor(), "http://dagster")
        town.desk.report(found)
        told = town.told()
        table.add("a training fails", town.desk.alarms()[0].title, time.monotonic() - began, 0, ", ".join(told))
        assert "run of models/life failed: ValueError: 12 rows are too few" in told["Slack"][0]
        assert "12 rows are too few" in told["e-mail"][0]
        town.desk.acknowledge(1, "ada")
        broken = False
        dg.materialize([life], instance=instance)
        town.desk.report(run_findings(instance, cursor, "http://dagster")[0])
    assert town.told()["PagerDuty"] == ["trigger", "acknowledge", "resolve"]
    assert town.desk.alarms() == [], "acknowledged, and over"
