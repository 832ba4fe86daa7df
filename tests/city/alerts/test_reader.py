"""From messages in Kafka to alarms at the store, across kills, restarts, and whatever happens to topics."""

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from city.alerts import reader as reader_module
from city.alerts.lease import Lease
from city.alerts.model import Alarm
from city.alerts.reader import STATE, AlarmReader, state_of
from city.alerts.store import AlertStore, alert_store
from city.lake.erasures import Erasure, announce, digest
from city.privacy.erase import forget
from city.settings import Settings
from city.streaming import topic_reader
from city.streaming.topics import ensure_topics
from tests.city.alerts.reading import HOT
from tests.city.privacy.test_erase import whereabouts
from tests.live import until

BEGIN = datetime.now(UTC) - timedelta(minutes=30)


class Ovens:
    """A topic of its own, its condition, and readers of it."""

    def __init__(self, config: Settings, create: bool = True) -> None:
        self.config, self.topic = config, f"ovens-{uuid.uuid4().hex[:8]}"
        self.store = alert_store(config)
        self.condition = replace(HOT, topic=self.topic)
        self._producer = Producer({"bootstrap.servers": str(config.kafka)})
        self._readers: list[AlarmReader] = []
        if create:
            ensure_topics(config.kafka, [], [self.topic])

    def read(self, ready: bool = True) -> AlarmReader:
        made = AlarmReader(self.config, [self.condition])
        self._readers.append(made)
        made.start()
        if ready:
            until(lambda: self.topic in self.store.remembered(STATE)["topics"])
            until(lambda: made.worker.items or made.worker.last_progress)
        return made

    def send(self, *degrees: float, oven: str = "a", begin: float = 0, partition: int = 0) -> None:
        for number, value in enumerate(degrees):
            at = BEGIN + timedelta(seconds=begin + 5 * number)
            self.raw(json.dumps({"oven": oven, "degrees": value, "timestamp": at.isoformat()}).encode(), partition)
        assert self._producer.flush(10) == 0

    def raw(self, content: bytes | None, partition: int = 0) -> None:
        self._producer.produce(self.topic, content, partition=partition)
        self._producer.poll(0)

    def renew(self) -> None:
        """Another producer: the one before knows a topic as it was."""
        assert self._producer.flush(10) == 0
        self._producer = Producer({"bootstrap.servers": str(self.config.kafka)})

    def alarms(self) -> dict[str, Alarm]:
        return {alarm.labels["oven"]: alarm for alarm in self.store.alarms()}

    def stop(self) -> None:
        for made in self._readers:
            made.stop()


@pytest.fixture
def now(stack: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A city that is old enough for alarms."""
    monkeypatch.setenv("CITY_ALERT_DOMAINS_AFTER", "0")
    monkeypatch.setattr(topic_reader, "_LOOK_AGAIN_SECONDS", 1.0)
    monkeypatch.setattr(topic_reader, "_LOOK_SECONDS", 0.5)
    return stack.model_copy(update={"alert_domains_after": 0.0})


@pytest.fixture
def ovens(now: Settings) -> Iterator[Ovens]:
    made = Ovens(now)
    yield made
    made.stop()


def events(store: AlertStore, alarm: Alarm) -> list[str]:
    return [entry["event"] for entry in store.history(alarm.id)]


def test_a_kill_before_or_after_any_report_loses_nothing_and_repeats_nothing(ovens: Ovens) -> None:
    def run(when: str, number: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-m", "tests.city.alerts.reading", ovens.topic, when, str(number)])

    made = run("after", 1)
    until(lambda: ovens.store.remembered(STATE))
    for number in range(6):  # each ends before the next begins, and both may be of one batch
        ovens.send(120, 130, 50, 50, 50, 50, oven=f"o{number}", partition=number % 2)
    ovens.send(120, 130, oven="last")
    for when, number in (("before", 1), ("after", 2), ("before", 2), ("after", 1), ("before", 1)):
        assert made.wait(60) == -signal.SIGKILL
        made = run(when, number)
    assert made.wait(60) == -signal.SIGKILL
    made = run("after", 1_000)
    try:
        until(lambda: len(ovens.alarms()) == 7 and sum(alarm.active for alarm in ovens.alarms().values()) == 1)
    finally:
        made.kill()
        made.wait()
    assert {oven: events(ovens.store, alarm) for oven, alarm in ovens.alarms().items()} == {
        **{f"o{number}": ["raised", "cleared"] for number in range(6)},
        "last": ["raised"],
    }
    assert {alarm.count for alarm in ovens.alarms().values()} == {1}


def test_what_was_there_before_the_first_start_is_not_read_and_what_came_while_it_was_away_is(ovens: Ovens) -> None:
    ovens.send(300, 300, oven="before")
    ovens.read().stop()
    ovens.send(300, 300, oven="away")
    ovens.read()
    until(lambda: "away" in ovens.alarms())
    assert ovens.alarms().keys() == {"away"}


def test_topics_that_come_later_partitions_that_are_added_and_topics_made_anew_are_read(now: Settings) -> None:
    ovens = Ovens(now, create=False)
    admin = AdminClient({"bootstrap.servers": str(now.kafka)})
    try:
        reader = ovens.read()
        ensure_topics(now.kafka, [], [ovens.topic])
        ovens.send(300, 300, oven="later topic")
        until(lambda: "later topic" in ovens.alarms())
        for future in admin.create_partitions([NewPartitions(ovens.topic, 5)]).values():
            future.result(10)
        ovens.renew()
        until(lambda: len(admin.list_topics(ovens.topic, timeout=5).topics[ovens.topic].partitions) == 5)
        ovens.send(300, 300, oven="later partition", partition=4)
        until(lambda: "later partition" in ovens.alarms())
        for future in admin.delete_topics([ovens.topic]).values():
            future.result(10)
        until(lambda: ovens.topic not in admin.list_topics(timeout=5).topics)
        ensure_topics(now.kafka, [], [ovens.topic])
        ovens.renew()
        ovens.send(*[50] * 20, 300, 300, oven="made anew")  # longer than the one before was
        until(lambda: "made anew" in ovens.alarms(), 60)
        assert reader.worker.restarts == 0
    finally:
        ovens.stop()


def test_no_message_ends_the_reader(ovens: Ovens) -> None:
    reader = ovens.read()
    broken: tuple[bytes | None, ...] = (None, b"", b"\xff", b"[1]", b'"x"', b"{}", b'{"oven": []}', b'{"oven": "a"}')
    for content in broken:
        ovens.raw(content)
    ovens.send(300, 300)
    until(lambda: "a" in ovens.alarms())
    assert reader.unreadable == len(broken) - 1  # an empty object says nothing
    assert reader.worker.restarts == 0


def test_of_two_readers_one_reads_and_the_other_takes_over(ovens: Ovens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_STANDBY_SECONDS", 0.2)
    first = ovens.read()
    second = ovens.read()
    ovens.send(300, 300)
    until(lambda: "a" in ovens.alarms())
    assert (first.reading, second.reading) == (True, False)
    assert second.worker.complaint() is None
    first.stop()
    ovens.send(50, 50, 50, begin=20)
    until(lambda: not ovens.alarms()["a"].active)
    assert second.reading
    assert events(ovens.store, ovens.alarms()["a"]) == ["raised", "cleared"]


def test_a_young_city_raises_nothing_and_an_older_one_what_lasts(ovens: Ovens) -> None:
    ovens.config = ovens.config.model_copy(update={"alert_domains_after": 24.0})
    young = ovens.read()
    ovens.send(300, 300, oven="lasts")
    ovens.send(300, 300, 50, 50, 50, 50, oven="short")
    until(lambda: young.worker.items >= 8)
    young.stop()
    assert ovens.alarms() == {}
    ovens.config = ovens.config.model_copy(update={"alert_domains_after": 0.0})
    ovens.read()
    ovens.send(300, oven="lasts", begin=90)
    until(lambda: ovens.alarms())
    assert ovens.alarms().keys() == {"lasts"}


def test_somebody_who_is_erased_does_not_come_back_from_the_readers_memory(ovens: Ovens) -> None:
    who, other = "Zoë-7", "Zoë-8"
    ovens.condition = replace(ovens.condition, key="vehicle_id")

    def send(vehicle: str, *degrees: float, begin: float = 0) -> None:
        for number, value in enumerate(degrees):
            at = (BEGIN + timedelta(seconds=begin + 5 * number)).isoformat()
            message = {"oven": vehicle, "vehicle_id": vehicle, "degrees": value, "timestamp": at}
            ovens.raw(json.dumps(message).encode())
        ovens.renew()

    def active() -> set[str]:
        return {alarm.labels["vehicle_id"] for alarm in ovens.store.alarms() if alarm.active}

    reader = ovens.read()
    send(who, 300, 300, 300)
    send(other, 300, 300, 300)
    until(lambda: active() == {who, other})
    assert forget(ovens.config, "vehicle", who).rows["alerts/alerts.db"] > 0
    send(other, 310, 50, 50, 50, begin=60)
    until(lambda: not active())
    send("new", 300, 300)
    until(lambda: active() == {"new"})
    reader.stop()
    assert whereabouts(ovens.config.home, who) == []
    assert whereabouts(ovens.config.home, other) == ["alerts/alerts.db"]


def test_an_erasure_that_begins_while_nobody_reads_is_heeded_by_the_next_reader(ovens: Ovens) -> None:
    """It was announced, and the store of alarms is not yet erased."""
    ovens.read()
    ovens.send(300, 300, oven="gone")
    ovens.send(300, 300, oven="stays")
    until(lambda: ovens.alarms().keys() == {"gone", "stays"})
    ovens.stop()
    announce(ovens.config.home, Erasure("oven", digest("oven", "gone")))
    ovens.read()
    until(lambda: not ovens.alarms()["gone"].active)
    until(lambda: ovens.store.remembered(state_of("plant/hot"))["tracks"].keys() == {"stays"})
    assert ovens.alarms()["stays"].active


def test_a_state_of_another_version_is_begun_anew(ovens: Ovens) -> None:
    ovens.read().stop()
    state = {"tracks": {"a": {"unknown": 1}}}
    ovens.store.sync_findings([], remember={state_of("plant/hot"): state})
    reader = ovens.read()
    ovens.send(300, 300)
    until(lambda: "a" in ovens.alarms())
    assert reader.worker.restarts == 0


def test_a_state_that_was_kept_as_a_whole_is_gone_on_from(ovens: Ovens) -> None:
    ovens.read()
    ovens.send(300)
    until(lambda: ovens.store.remembered(STATE)["topics"][ovens.topic]["positions"])
    ovens.stop()
    whole = ovens.store.remembered(STATE) | {"watches": {"plant/hot": ovens.store.remembered(state_of("plant/hot"))}}
    assert whole["watches"]["plant/hot"]["tracks"].keys() == {"a"}
    gone = state_of("plant/gone")
    ovens.store.sync_findings([], remember={STATE: whole, state_of("plant/hot"): None, gone: {"tracks": {}}})
    ovens.read()
    ovens.send(300, begin=5)  # with the one before it is two
    until(lambda: "a" in ovens.alarms())
    assert "watches" not in ovens.store.remembered(STATE)
    assert ovens.store.remembered_below(STATE + "/").keys() == {state_of("plant/hot")}, "no other is declared"


def test_a_lease_is_held_by_one_and_ends_with_it(config: Settings) -> None:
    alert_store(config)
    first, second = Lease(config.alerts_store, "reader"), Lease(config.alerts_store, "reader")
    other = Lease(config.alerts_store, "something else")
    assert first.acquire()
    assert not second.acquire()
    assert other.acquire()
    first.check()
    first.release()
    assert second.acquire()
    second.release()
    other.release()


def test_a_reader_without_conditions_does_nothing(config: Settings) -> None:
    reader = AlarmReader(config, [])
    reader.start()
    assert not reader.worker.is_alive()
    reader.stop()
    assert not reader.reading
