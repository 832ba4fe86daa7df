"""What goes wrong and must reach people: through real servers of each channel, into the table of tests/faults.py."""

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from aiosmtpd.controller import Controller
from pydantic import SecretStr

from city.alerts.channels import addresses
from city.alerts.desk import Desk
from city.alerts.dispatch import deliver
from city.settings import Settings
from city.stack.embedded import free_ports
from city_assets.monitoring.alarms import run_findings
from tests.city.alerts.test_dispatch import Hook, Mailbox
from tests.faults import FaultTable


class Town:
    """An alarm desk with a Slack, a PagerDuty and a mail server of the test's own."""

    def __init__(self, config: Settings, hook: Hook, box: Mailbox, mail: str) -> None:
        told = {
            "alert_slack_url": SecretStr(f"{hook.url}/slack"),
            "alert_pagerduty_key": SecretStr("the-key"),
            "alert_pagerduty_url": f"{hook.url}/pagerduty",
            "alert_email_to": ["ada@city"],
            "smtp_address": mail,
            "smtp_tls": False,
        }
        self.config = config.model_copy(update=told)
        self.hook, self.box = hook, box
        self.desk = Desk(f"sqlite:///{config.home / 'alerts.db'}", addresses(self.config))

    def told(self) -> dict[str, list[str]]:
        """What each channel has, after all that is due was sent."""
        while deliver(self.desk, self.config).sent:
            pass
        return {
            "Slack": [body["text"] for body in self.hook.of("/slack")],
            "PagerDuty": [page["event_action"] for page in self.hook.of("/pagerduty")],
            "e-mail": [letter.content.decode() for letter in self.box.letters],
        }


@pytest.fixture
def town(config: Settings, tmp_path: Path) -> Iterator[Town]:
    (port,), hook, box = free_ports(1), Hook(), Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield Town(config, hook, box, f"127.0.0.1:{port}")
    finally:
        server.stop()
        hook.server.shutdown()


def test_a_training_that_fails_is_told_and_resolved_by_one_that_succeeds(town: Town, table: FaultTable) -> None:
    broken = True

    @dg.asset(key=["models", "life"])
    def life() -> None:
        if broken:
            raise ValueError("12 rows are too few: give at least 2,000")

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([life], instance=instance, raise_on_error=False)
        began = time.monotonic()
        found, until = run_findings(instance, None, "http://dagster")
        town.desk.report(found)
        told = town.told()
        table.add("a training fails", town.desk.alarms()[0].title, time.monotonic() - began, 0, ", ".join(told))
        assert "run of models/life failed: ValueError: 12 rows are too few" in told["Slack"][0]
        assert "12 rows are too few" in told["e-mail"][0]
        town.desk.acknowledge(1, "ada")
        broken = False
        dg.materialize([life], instance=instance)
        town.desk.report(run_findings(instance, until, "http://dagster")[0])
    assert town.told()["PagerDuty"] == ["trigger", "acknowledge", "resolve"]
    assert town.desk.alarms() == [], "acknowledged, and over"
