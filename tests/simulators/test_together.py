import threading
import time

import pytest

from city.settings import Settings
from city.stack.state import read_json
from city.streaming.heartbeat import Heartbeat
from simulators import together
from simulators.clock import Progress, pace
from simulators.world.streets import streets
from tests.live import until


class Steady:
    """Makes 50 events a second, and fails in its first life where it is told to."""

    lives = 0

    def __init__(self, config: Settings, name: str, fails: bool = False) -> None:
        self._heartbeat = Heartbeat(config, f"simulator-{name}")
        self._fails = fails and type(self).lives == 0

    def run(self, stop: threading.Event, progress: Progress) -> None:
        def step(now: object, count: int) -> None:
            progress(count)
            self._heartbeat.count(count)
            self._heartbeat.beat()
            if self._fails and count:
                type(self).lives += 1
                raise RuntimeError("out of paper")

        pace(50, stop, step)


def test_a_simulator_that_fails_is_made_anew_while_the_others_go_on(config: Settings) -> None:
    stop = threading.Event()
    makers = {"good": lambda: Steady(config, "good"), "bad": lambda: Steady(config, "bad", fails=True)}
    thread = threading.Thread(target=together.run, args=(makers, config, stop))
    thread.start()
    try:

        def events(name: str) -> int:
            return (read_json(config, f"{name}.json") or {"events": 0})["events"]

        until(lambda: events("simulator-good") > 100 and events("simulator-bad") > 20)
        assert Steady.lives == 1
        until(lambda: events("simulators") > 120)
    finally:
        stop.set()
        thread.join(15)
    assert not thread.is_alive()


def test_simulators_wait_for_kafka_but_not_for_ever(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_LONGEST_WAIT_SECONDS", 0.5)
    away = config.model_copy(update={"kafka_address": "127.0.0.1:9"})
    streets()
    began = time.monotonic()
    together.prepare(away, threading.Event())
    assert 0.4 < time.monotonic() - began < 5
    stopped = threading.Event()
    stopped.set()
    monkeypatch.setattr(together, "_LONGEST_WAIT_SECONDS", 60.0)
    began = time.monotonic()
    together.prepare(away, stopped)
    assert time.monotonic() - began < 5
