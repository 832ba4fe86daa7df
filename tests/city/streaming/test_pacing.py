"""How long events gather."""

import random

import pytest

from city.streaming.pacing import Pacing


def latencies(pacing: Pacing, overhead: float, transit: float, seconds: float = 300.0) -> list[float]:
    """Ages at the sinks of events that come at random moments, by a stream whose batches take `overhead`."""
    chance, waits, at = random.Random(1), [], 0.0
    while at < seconds:
        gathered = pacing.seconds
        pacing.add_transit(transit)
        pacing.add_overhead(overhead)
        waits += [transit + chance.uniform(0, pacing.fetch_seconds) + chance.uniform(0, gathered) + overhead] * 1
        at += max(gathered, overhead)
    return waits[20:]


@pytest.mark.parametrize("promise", [0.25, 1.0, 5.0])
def test_the_promise_holds_and_is_used(promise: float) -> None:
    sorted_latencies = sorted(
        latencies(Pacing(promise), overhead=promise * 0.15, transit=promise * 0.1, seconds=promise * 2000)
    )
    p95 = sorted_latencies[int(0.95 * len(sorted_latencies))]
    assert 0.7 * promise < p95 < promise


def test_what_is_measured_corrects_the_plan_within_bounds() -> None:
    pacing = Pacing(1.0)
    planned = pacing.seconds
    for _ in range(200):
        pacing.correct(0.6)
    assert planned + 0.3 < pacing.seconds < 1.0
    raised = pacing.seconds
    pacing.correct(1.5)
    assert pacing.seconds < raised - 0.1, "at once, where the promise is broken"
    for _ in range(10):
        pacing.correct(5.0)
    assert pacing.seconds == planned


def test_under_load_batches_grow_rather_than_shrink() -> None:
    pacing = Pacing(1.0)
    calm = pacing.seconds
    for _ in range(100):
        pacing.add_overhead(0.3)
    busy = pacing.seconds
    for _ in range(100):
        pacing.add_overhead(0.9)
    assert busy < calm
    assert pacing.seconds >= 0.9
    for _ in range(100):
        pacing.add_overhead(5.0)
    assert pacing.seconds == 1.0


def test_what_comes_later_than_promised_is_the_source_s_own_delay() -> None:
    pacing = Pacing(1.0)
    before = pacing.seconds
    for _ in range(100):
        pacing.add_transit(3600.0)
        pacing.add_transit(-5.0)
    assert pacing.seconds == before
