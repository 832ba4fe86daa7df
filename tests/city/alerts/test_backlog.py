"""Channels that do not take their messages, and who hears of it: two real HTTP servers, one of which is unavailable."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from city.alerts import backlog
from city.alerts.dispatch import DeliveryResult, deliver
from city.alerts.listing import unsent_line
from city.alerts.model import Alarm, Finding
from city.alerts.outbox import CHANNEL_ALARMS
from city.alerts.store import AlertStore, alert_store
from city.alerts.watch import PlatformWatch
from city.settings import Settings
from tests.city.alerts.test_dispatch import Hook

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LOW = Finding("check/gold/a/low", "error", "a is low", "gold/a")
SLACK, WEBHOOK = f"{CHANNEL_ALARMS}slack", f"{CHANNEL_ALARMS}webhook"


def minutes(count: float) -> datetime:
    return NOW + timedelta(minutes=count)


@dataclass
class Place:
    """A city whose alarms go to a webhook and to Slack."""

    config: Settings
    webhook: Hook
    slack: Hook

    def __post_init__(self) -> None:
        self.store = alert_store(self.config)
        self.watch = PlatformWatch(self.config, self.store, began=NOW)

    def at(self, minute: float, *findings: Finding) -> dict[str, Alarm]:
        """What a watcher and a worker do at that minute; the alarms of channels that are active after it."""
        self.store.sync_findings(findings, None, minutes(minute))
        while deliver(self.store, self.config, minutes(minute)) != DeliveryResult():
            pass
        self.watch.look(minutes(minute))
        while deliver(self.store, self.config, minutes(minute)) != DeliveryResult():
            pass
        return {a.cause: a for a in self.store.alarms(now=minutes(minute)) if a.active and CHANNEL_ALARMS in a.cause}


@pytest.fixture
def place(config: Settings) -> Iterator[Place]:
    config.home.mkdir(parents=True, exist_ok=True)
    webhook, slack = Hook(), Hook()
    addresses = {"alert_webhook_url": SecretStr(webhook.url), "alert_slack_url": SecretStr(slack.url)}
    place = Place(config.model_copy(update=addresses | {"alert_escalate_minutes": 600}), webhook, slack)
    yield place
    place.watch.close()
    webhook.server.shutdown()
    slack.server.shutdown()


def notifications(hook: Hook) -> list[tuple[str, str]]:
    """The events of channels' alarms that a webhook got."""
    alarms = [alarm for _, body in hook.bodies for alarm in body["alarms"]]
    return [(alarm["event"], alarm["cause"]) for alarm in alarms if alarm["cause"].startswith(CHANNEL_ALARMS)]


def test_a_channel_that_is_away_is_told_on_the_others_once(place: Place) -> None:
    place.slack.status = 500
    assert place.at(0, LOW) == {}
    said = "1 waiting since 2026-05-04 12:00:00 UTC: slack: the server answered 500: not now"
    assert backlog.complaints(place.store.outbox.unsent(), NOW) == {"slack": said}
    assert place.at(4.9) == {}
    alarm = place.at(5.1)[SLACK]
    assert (alarm.severity, alarm.title) == ("error", f"the alarm channel slack accepts no messages: {said}")
    for minute in range(6, 120, 12):
        assert place.at(minute).keys() == {SLACK}
    assert notifications(place.webhook) == [("raised", SLACK)]
    assert [channel.waiting for channel in place.store.outbox.unsent()] == [1], "it is not told to itself"
    place.slack.status = 200
    assert place.at(190) == {}
    assert notifications(place.webhook) == [("raised", SLACK), ("cleared", SLACK)]
    assert len(place.slack.bodies) == 1
    assert backlog.complaints(place.store.outbox.unsent(), minutes(190)) == {}


def test_channels_that_are_away_do_not_keep_each_others_alarms(place: Place) -> None:
    place.webhook.status = place.slack.status = 500
    place.at(0, LOW)
    assert place.at(6).keys() == {SLACK, WEBHOOK}
    assert place.store.outbox.drop("slack", "ada") == 2, "its own message, and the alarm of the webhook"
    place.store.outbox.drop("webhook", "ada")
    assert place.at(7) == {}
    for minute in range(8, 60, 6):
        assert place.at(minute) == {}
    assert backlog.complaints(place.store.outbox.unsent(), minutes(60)).keys() == {"slack", "webhook"}, (
        "it is told here"
    )


def test_while_nobody_sent_no_channel_was_away(place: Place) -> None:
    place.slack.status = 500
    place.at(0, LOW)
    place.watch.close()
    place.watch = PlatformWatch(place.config, place.store, began=minutes(600))
    assert place.at(601) == {}
    assert place.at(606).keys() == {SLACK}
    place.watch.close()
    place.watch = PlatformWatch(place.config, place.store, began=minutes(700))
    assert place.at(701).keys() == {SLACK}, "what was raised before is still so"


def test_a_channel_that_was_taken_out_is_a_warning_until_its_messages_are_dropped(place: Place) -> None:
    place.slack.status = 500
    place.at(0, LOW)
    place.config = place.config.model_copy(update={"alert_slack_url": None})
    place.watch.close()
    place.watch = PlatformWatch(place.config, place.store, began=NOW)
    alarm = place.at(6)[SLACK]
    assert alarm.severity == "warning"
    assert alarm.title.endswith("set it again, or drop them: city alerts drop slack")
    assert place.store.outbox.drop("slack", "ada", minutes(7)) == 1
    assert place.at(8) == {}
    history = [(entry["event"], entry["by"], entry["note"]) for entry in place.store.history(1)]
    assert ("dropped", "ada", "1 message(s) to slack, not sent") in history


def test_what_waits_is_counted_by_channel(place: Place, config: Settings) -> None:
    place.slack.status = 500
    place.at(0, LOW)
    assert backlog.waiting(place.store, place.config) == {"webhook": 0, "slack": 1}
    assert backlog.waiting(place.store, config) == {"slack": 1}
    assert place.store.active_by_severity() == {"info": 0, "warning": 0, "error": 1, "critical": 0}


def test_what_was_given_up_waits_no_more(place: Place) -> None:
    place.slack.status = 500
    place.at(0, LOW)
    deliver(place.store, place.config, minutes(8 * 24 * 60))
    (slack,) = place.store.outbox.unsent()
    assert (slack.waiting, slack.given_up, slack.since) == (0, 1, None)
    assert unsent_line(slack) == "channel slack: 1 given up after a week"
    assert backlog.complaints([slack], minutes(8 * 24 * 60)) == {}


def test_messages_that_no_worker_sends_are_told_where_people_look(config: Settings) -> None:
    (config.home / "alerts").mkdir(parents=True)
    known: AlertStore = alert_store(config.model_copy(update={"alert_webhook_url": SecretStr("http://127.0.0.1:9/")}))
    known.sync_findings([LOW], None, NOW)
    assert backlog.complaints(known.outbox.unsent(), minutes(4)) == {}
    said = "1 waiting since 2026-05-04 12:00:00 UTC, and none was tried"
    assert backlog.complaints(known.outbox.unsent(), minutes(6)) == {"webhook": said}
