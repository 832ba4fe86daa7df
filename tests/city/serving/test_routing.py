"""Who answers, and when an experiment ends by itself."""

import random
from pathlib import Path

import numpy as np
import pytest

from city.serving.audit import Audit
from city.serving.routing import Arm, Experiment, Limits, Routes, compared, place_of, worse
from city.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def routes(home: Settings) -> Routes:
    return Routes(home, Audit(home), random.Random(0))


def test_keys_keep_their_side_and_shares_are_kept() -> None:
    places = [place_of("m/2/0", f"user{n}") for n in range(5_000)]
    assert np.mean(np.array(places) < 0.2) == pytest.approx(0.2, abs=0.02)
    assert places == [place_of("m/2/0", f"user{n}") for n in range(5_000)]
    other = [place_of("m/3/0", f"user{n}") for n in range(5_000)]
    assert abs(np.corrcoef(places, other)[0, 1]) < 0.05  # another experiment deals anew


def test_a_canary_gets_its_share_and_a_restart_changes_nothing(home: Settings) -> None:
    known = routes(home)
    known.put("m", Experiment("canary", 2, 0.25), "ada")
    assert np.mean([known.choose("m", None) == "canary" for _ in range(4_000)]) == pytest.approx(0.25, abs=0.03)
    assert routes(home).of("m") == known.of("m")
    known.remove("m", "ada", "enough")
    assert routes(home).of("m") is None
    assert known.choose("m", None) == "champion"
    written = Audit(home).newest(10)
    assert [entry["what"] for entry in written] == ["experiment ended", "experiment begun"]
    assert {entry["by"] for entry in written} == {"ada"}


def test_a_canary_that_fails_is_ended_before_many_saw_it(home: Settings) -> None:
    known = routes(home)
    known.put("m", Experiment("canary", 2, 0.5), "ada")
    failed = 0
    while known.of("m") is not None:
        known.answered("m", "champion", 1.0)
        known.failed("m", "canary")
        failed += 1
    assert failed <= 12
    assert "requests failed" in known.ended["m"]
    assert Audit(home).newest(1)[0]["by"] == "the platform itself"


def test_one_that_is_slow_or_surely_worse_is_ended_and_one_that_is_not_stays() -> None:
    def arm(milliseconds: float, losses: list[float] | None = None, requests: int = 100) -> Arm:
        made = Arm()
        for _ in range(requests):
            made.answered(milliseconds)
        for loss in losses or []:
            made.judged(loss)
        return made

    chance = np.random.default_rng(0)
    good, bad = list(chance.normal(1, 0.3, 200)), list(chance.normal(1.3, 0.3, 200))
    limits = Limits()
    assert worse(limits, arm(5), arm(5.5)) is None
    assert "takes 30.0 ms" in str(worse(limits, arm(5), arm(30)))
    assert worse(limits, arm(0.1), arm(0.9)) is None  # more than twice, and nothing that anybody notices
    assert worse(limits, arm(5, requests=20), arm(30, requests=20)) is None  # too few to say
    assert "its loss is" in str(worse(limits, arm(5, good), arm(5, bad)))
    assert worse(limits, arm(5, good), arm(5, list(chance.normal(1, 0.3, 200)))) is None
    assert worse(limits, arm(5, bad), arm(5, good)) is None


def test_a_difference_is_reported_with_its_interval_and_p_value() -> None:
    from scipy import stats

    chance = np.random.default_rng(1)
    one, two = chance.normal(1, 0.5, 300), chance.normal(1.1, 0.2, 150)
    arms = (Arm(), Arm())
    for arm, losses in zip(arms, (one, two), strict=True):
        for loss in losses:
            arm.judged(float(loss))
    found, known = compared(*arms), stats.ttest_ind(two, one, equal_var=False)
    assert found is not None
    assert found["p_value"] == pytest.approx(known.pvalue)
    interval = known.confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert compared(Arm(), arms[1]) is None
