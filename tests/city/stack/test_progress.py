"""Which sources fell silent: of what a city has, from 200 events a second to a few in a minute."""

import random

import pytest

from city.stack.progress import Samples, stalled_sources


class Source:
    """Events at random (Poisson) at a rate, looked at once a second as a heartbeat does."""

    def __init__(self, rate: float, silent: range = range(0), burst: float = 1.0) -> None:
        self.rate, self.silent, self.burst = rate, silent, burst
        self.samples, self.total, self._random = Samples(), 0, random.Random(int(rate * 100))
        self._next = 0.0

    def look(self, now: int) -> None:
        while self._next < now:
            self._next += self._random.expovariate(self.rate / self.burst)
            if int(self._next) not in self.silent:
                self.total += int(self.burst)
        self.samples.add(now, self.total)


def reported(sources: dict[str, Source], seconds: int) -> dict[str, list[int]]:
    """At which seconds each source was said to be silent."""
    reports: dict[str, list[int]] = {name: [] for name in sources}
    for now in range(1, seconds):
        for source in sources.values():
            source.look(now)
        for name in stalled_sources({name: source.samples.content() for name, source in sources.items()}, now):
            reports[name].append(now)
    return reports


@pytest.mark.parametrize("rate", [1.5, 20.0, 200.0, 5_000.0])
def test_a_source_that_falls_silent_is_reported_within_thirty_seconds_and_until_it_is_back(rate: float) -> None:
    silence = range(300, 400)
    sources = {"it": Source(rate, silence), "peer": Source(100), "slow": Source(0.05)}
    reports = reported(sources, 600)
    assert silence.start + 20 <= reports["it"][0] <= silence.start + 30 + 5 / rate
    assert reports["it"] == list(range(reports["it"][0], reports["it"][-1] + 1))
    assert silence.stop - 1 <= reports["it"][-1] <= silence.stop + 5 / rate
    assert reports["peer"] == reports["slow"] == []


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.2, 0.5])
def test_slow_sources_are_never_reported(rate: float) -> None:
    assert reported({"it": Source(rate), "peer": Source(100)}, 3_000)["it"] == []


def test_a_source_whose_events_come_in_bursts_is_not_reported_for_its_pauses() -> None:
    """400 devices announce themselves at once, every half a minute or so."""
    assert reported({"it": Source(12, burst=400), "peer": Source(100)}, 3_000)["it"] == []


def test_where_all_are_silent_none_is_reported_by_its_peers() -> None:
    """What they have in common is unavailable, and says so itself."""
    silence = range(300, 400)
    reports = reported({"a": Source(100, silence), "b": Source(200, silence)}, 500)
    assert reports == {"a": [], "b": []}
    assert reported({"alone": Source(100, silence)}, 500) == {"alone": []}


def test_what_is_said_names_the_pace_it_had() -> None:
    steady = {"it": Source(200, range(300, 400)), "peer": Source(200)}
    reported(steady, 330)
    (said,) = stalled_sources({name: source.samples.content() for name, source in steady.items()}, 330).values()
    assert said.startswith(("no progress for 30 s: was ", "no progress for 31 s: was "))
    assert said.endswith("events/s; its peers go on")


def test_after_a_day_a_silence_is_how_it_is() -> None:
    samples = [(float(n * 5), n * 1_000) for n in range(13)]
    peer = [(90_000.0 + n * 5, n * 1_000) for n in range(13)]
    assert stalled_sources({"it": samples, "peer": peer}, 90_061) == {}
