"""Who answers, and when an experiment ends by itself."""

import json
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from city.serving.roles import Role
from city.serving.routing import Routes, hash_to_fraction
from city.serving.trial import Experiment, Limits, Trial
from city.settings import Settings
from city.web.audit import Audit
from city.web.problems import Problem
from tests.city.serving.served import SPEED

CANARY = Experiment("canary", 2, 0.25)


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def routes(home: Settings) -> Routes:
    return Routes(home, Audit(home), {"m": SPEED}, random.Random(0))


def begun(home: Settings, experiment: Experiment = CANARY) -> tuple[Routes, Trial]:
    known = routes(home)
    known.put("m", experiment, 1, "ada")
    trial = known.trial("m", 1)
    assert trial is not None
    return known, trial


def ask(known: Routes, trial: Trial, role: Role, milliseconds: float | None) -> bool:
    """A request that took so long, or that failed; whether the experiment goes on."""
    if milliseconds is None:
        trial.count_failure(role)
        trial.compare_failures(role != "champion", role == "champion")
    else:
        trial.count_answer(role, milliseconds)
    known.end_if_worse("m", trial)
    return known.experiment("m") is not None


def test_keys_keep_their_side_and_shares_are_kept() -> None:
    places = [hash_to_fraction("m/2/0", f"user{n}") for n in range(5_000)]
    assert np.mean(np.array(places) < 0.2) == pytest.approx(0.2, abs=0.02)
    assert places == [hash_to_fraction("m/2/0", f"user{n}") for n in range(5_000)]
    other = [hash_to_fraction("m/3/0", f"user{n}") for n in range(5_000)]
    assert abs(np.corrcoef(places, other)[0, 1]) < 0.05  # another experiment deals anew


def test_a_canary_gets_its_share_and_a_restart_changes_nothing(home: Settings) -> None:
    known, trial = begun(home)
    again = routes(home)
    restored = again.trial("m", 1)
    assert restored is not None
    assert restored.experiment == trial.experiment == CANARY
    for of, going in ((known, trial), (again, restored)):
        share = np.mean([of.choose_role("m", going, None) == "canary" for _ in range(4_000)])
        assert share == pytest.approx(0.25, abs=0.03)
    known.remove("m", "ada", "enough")
    assert routes(home).experiment("m") is None
    assert known.trial("m", 1) is None
    assert known.choose_role("m", None, None) == "champion"
    written = Audit(home).newest(10)
    assert [entry["what"] for entry in written] == ["experiment ended", "experiment begun"]
    assert {entry["by"] for entry in written} == {"ada"}


def test_keys_of_an_ab_test_keep_their_arm_across_a_restart(home: Settings) -> None:
    known, trial = begun(home, Experiment("ab", 2, 0.25, since=7.0))
    keys = [f"user{n}" for n in range(2_000)]
    arms = [known.choose_role("m", trial, key) for key in keys]
    assert np.mean([arm == "b" for arm in arms]) == pytest.approx(0.25, abs=0.03)
    assert set(arms) == {"b", "champion"}
    again = routes(home)
    assert [again.choose_role("m", again.trial("m", 1), key) for key in keys] == arms
    known.put("m", Experiment("ab", 2, 0.25, since=8.0), 1, "ada")
    assert [known.choose_role("m", known.trial("m", 1), key) for key in keys] != arms, "another experiment deals anew"


def test_a_shadow_answers_nobody(home: Settings) -> None:
    known, trial = begun(home, Experiment("shadow", 2, 1.0))
    assert {known.choose_role("m", trial, key) for key in (None, "a", "b", "c")} == {"champion"}


def test_what_was_counted_survives_a_restart_and_goes_on(home: Settings) -> None:
    chance = np.random.default_rng(0)
    known, trial = begun(home)
    began = trial.newest_outcome_at

    def count(trial: Trial, numbers: Iterable[int]) -> None:
        for n in numbers:
            trial.count_answer("canary", 5 + n / 100)
            trial.count_answer("champion", 4.0)
            loss = chance.exponential()
            trial.count_outcome(began + n, "canary", loss + 0.1)
            trial.count_outcome(began + n, "control", loss)
            trial.compare_losses(loss + 0.1, loss, 1.0)
        trial.count_failure("canary")
        trial.compare_failures(True, False)

    count(trial, range(40))
    known.end_if_worse("m", trial)
    snapshot = known.changed_snapshot()
    assert snapshot is not None
    known.write(snapshot)
    assert known.changed_snapshot() is None  # nothing was counted since
    again = routes(home)
    restored = again.trial("m", 1)
    assert restored is not None
    assert again.report("m") == known.report("m")
    assert (restored.id, restored.newest_outcome_at, restored.state()) == (trial.id, began + 39, trial.state())
    chance = np.random.default_rng(1)
    count(trial, range(40, 80))
    chance = np.random.default_rng(1)
    count(restored, range(40, 80))
    assert restored.state() == trial.state()


def test_an_older_snapshot_never_replaces_a_newer_one(home: Settings) -> None:
    known, trial = begun(home)
    ask(known, trial, "canary", 1.0)
    older = known.changed_snapshot()
    assert older is not None
    known.remove("m", "ada", "enough")
    known.write(older)  # by the thread that was slow
    assert routes(home).experiment("m") is None


def test_why_an_experiment_ended_survives_a_restart(home: Settings) -> None:
    known, trial = begun(home)
    while ask(known, trial, "canary", None):
        pass
    assert "requests failed" in routes(home).end_reasons["m"]


def test_experiments_of_before_counts_were_kept_go_on(home: Settings) -> None:
    path = home.home / "serving" / "routes.json"
    path.parent.mkdir(parents=True)
    limits = {"error_rate": 0.1, "latency_ratio": 2.0, "least_requests": 50}
    old = {"kind": "ab", "version": 2, "share": 0.5, "limits": limits, "by": "ada", "since": 7.5}
    path.write_text(json.dumps({"m": old}))
    assert routes(home).experiment("m") == Experiment("ab", 2, 0.5, Limits(0.1), "ada", 7.5)


def test_another_champion_is_another_trial_and_a_promoted_version_is_none(home: Settings) -> None:
    known, first = begun(home)
    ask(known, first, "canary", 1.0)
    second = known.trial("m", 3)
    assert second is not None
    assert second.id != first.id
    assert second.other.requests == 0
    while first.reason_to_end() is None:  # what is counted of the trial that is over ends nothing
        ask(known, first, "canary", None)
    assert known.experiment("m") is not None
    assert known.trial("m", 2) is None
    assert known.end_reasons["m"] == "version 2: version 2 is the champion now"


def test_a_canary_that_fails_is_ended_before_many_saw_it(home: Settings) -> None:
    known, trial = begun(home)
    failed = 1
    while ask(known, trial, "canary", None):
        failed += 1
        ask(known, trial, "champion", 1.0)
    assert failed <= 12
    assert "requests failed" in known.end_reasons["m"]
    assert Audit(home).newest(1)[0]["by"] == "the platform itself"


@pytest.mark.parametrize(("canary", "control"), [(0.02, 0.0), (0.1, 0.1), (0.3, 0.3)])
def test_one_that_fails_no_more_than_it_may_or_than_the_champion_stays(
    home: Settings, canary: float, control: float
) -> None:
    """The limit is 2 %. Looked at after each of 1,000 requests, by whom it would have been ended before long."""
    ended = 0
    for seed in range(60):
        chance, trial = random.Random(seed), Trial(CANARY, 1, True)
        for _ in range(1_000):
            failed, beside = chance.random() < canary, chance.random() < control
            trial.count_failure("canary") if failed else trial.count_answer("canary", 1.0)
            if failed or beside:
                trial.compare_failures(failed, beside)
            if trial.reason_to_end():
                ended += 1
                break
    assert ended <= 1


def test_inputs_that_both_fail_at_do_not_end_a_canary(home: Settings) -> None:
    known, trial = begun(home)
    for _ in range(500):
        trial.count_failure("canary")
        trial.count_failure("champion")
        trial.compare_failures(True, True)
        known.end_if_worse("m", trial)
    assert known.experiment("m") is not None


def test_one_that_is_slow_is_ended_and_one_that_is_not_stays(home: Settings) -> None:
    def ended(ours: float, theirs: float, requests: int = 200, noise: float = 0.3) -> str | None:
        chance, trial = random.Random(0), Trial(CANARY, 1, True)
        for _ in range(requests):
            trial.count_answer("champion", ours * chance.lognormvariate(0, noise))
            trial.count_answer("canary", theirs * chance.lognormvariate(0, noise))
            if why := trial.reason_to_end():
                return why
        return None

    assert ended(5, 5.5) is None
    assert "it takes" in str(ended(5, 30))
    assert ended(0.1, 0.9) is None  # more than twice, and nothing that anybody notices
    assert ended(5, 30, requests=40) is None  # the first ones warm it
    assert ended(5, 9, requests=3_000, noise=1.0) is None  # within the limit, however often one looks


def test_answers_from_memory_count_as_requests_and_not_as_latencies(home: Settings) -> None:
    known, trial = begun(home)
    for n in range(1_000):  # one in a hundred fails, nine in ten are remembered: 1 % of requests, 10 % of runs
        trial.count_answer("champion", 5.0)
        if n % 100 == 7:
            assert ask(known, trial, "canary", None)
        else:
            trial.count_answer("canary", 5.0 if n % 10 == 0 else None)
            known.end_if_worse("m", trial)
    assert known.experiment("m") is not None
    assert trial.other.summary() | {"loss": 0} == {
        "requests": 1_000,
        "errors": 10,
        "latency_ms": 5.0,
        "outcomes": 0,
        "loss": 0,
    }
    assert trial.other.timed == 100


def test_the_first_requests_are_no_bets_on_latency(home: Settings) -> None:
    """A version that is slow while it warms is not ended for that afterwards."""
    known, trial = begun(home)
    least = CANARY.limits.least_requests
    for n in range(4 * least):
        trial.count_answer("champion", 5.0)
        assert ask(known, trial, "canary", 500.0 if n < least else 5.0), n
    while ask(known, trial, "canary", 500.0):
        trial.count_answer("champion", 5.0)
    assert "it takes" in known.end_reasons["m"]


def test_a_champion_without_latencies_enough_is_no_measure(home: Settings) -> None:
    known, trial = begun(home)
    trial.count_answer("champion", 0.01)
    for _ in range(500):
        assert ask(known, trial, "canary", 30.0)


def test_one_that_is_surely_worse_is_ended_and_a_better_one_is_not(home: Settings) -> None:
    def ended(more: float) -> str | None:
        chance, trial = np.random.default_rng(0), Trial(CANARY, 1, False)
        for n in range(2_000):
            outcome, champion, canary = chance.normal(0, 1), chance.normal(0, 0.3), chance.normal(more, 0.3)
            losses = abs(canary - outcome), abs(champion - outcome)
            trial.count_outcome(n, "canary", losses[0])
            trial.count_outcome(n, "control", losses[1])
            trial.compare_losses(*losses, abs(canary - champion))
            if why := trial.reason_to_end():
                return why
        return None

    assert ended(0.0) is None
    assert "above the champion's" in str(ended(0.5))


def test_a_difference_is_reported_with_an_interval_that_may_be_looked_at_always(home: Settings) -> None:
    chance = np.random.default_rng(1)
    known, trial = begun(home, Experiment("ab", 2))
    one, two = chance.normal(1, 0.5, 300), chance.normal(1.3, 0.2, 150)
    for role, losses in (("champion", one), ("b", two)):
        for loss in losses[:25]:
            trial.count_outcome(0.0, role, float(loss))
    assert trial.comparison() is None
    for role, losses in (("champion", one[25:]), ("b", two[25:])):
        for loss in losses:
            trial.count_outcome(0.0, role, float(loss))
    report = known.report("m")
    assert report is not None
    comparison = report["comparison"]
    assert comparison["difference"] == pytest.approx(two.mean() - one.mean())
    assert 0 < comparison["low"] < comparison["difference"] < comparison["high"]
    assert comparison["p_value"] < 0.01
    assert comparison["outcomes"] == 150
    error = np.sqrt(one.var(ddof=1) / 300 + two.var(ddof=1) / 150)
    assert (
        comparison["high"] - comparison["difference"] > 1.96 * error
    )  # it is wider than one that may be looked at once
    assert report["arms"]["b"]["loss"] == pytest.approx(two.mean())


def test_a_disk_that_takes_nothing_fails_no_request_and_counts_are_written_when_it_does(home: Settings) -> None:
    known, trial = begun(home)
    path = home.home / "serving"
    moved = path.rename(home.home / "moved")
    path.write_text("no folder")
    while ask(known, trial, "canary", None):
        pass
    assert known.trial("m", 1) is None
    path.unlink()
    moved.rename(path)
    snapshot = known.changed_snapshot()
    assert snapshot is not None
    known.write(snapshot)
    assert routes(home).experiment("m") is None
    assert "requests failed" in routes(home).end_reasons["m"]
    assert [line["what"] for line in Audit(home).newest(9)] == ["experiment ended", "experiment begun"]
    assert known.changed_snapshot() is None  # and what is in the audit is not written to it again
    assert len(Audit(home).newest(9)) == 2


def test_what_cannot_be_in_the_audit_is_not_changed_and_says_why(home: Settings) -> None:
    audit = home.home / "serving" / "audit.jsonl"
    audit.mkdir(parents=True)
    known = routes(home)
    with pytest.raises(Problem, match="nothing was changed, because the audit cannot be written") as refused:
        known.put("m", CANARY, 1, "ada")
    assert refused.value.status == 503
    assert (known.experiment("m"), routes(home).experiment("m")) == (None, None)
    audit.rmdir()
    known.put("m", CANARY, 1, "ada")
    trial = known.trial("m", 1)
    audit.unlink()
    audit.mkdir()
    for change in (lambda: known.put("m", Experiment("shadow", 3), 1, "bob"), lambda: known.remove("m", "bob", "no")):
        with pytest.raises(Problem, match="nothing was changed"):
            change()
    assert (known.experiment("m"), known.trial("m", 1), routes(home).experiment("m")) == (CANARY, trial, CANARY)


def test_an_end_that_waits_for_the_audit_survives_a_restart_and_is_there_before_what_follows(home: Settings) -> None:
    known, trial = begun(home)
    audit = home.home / "serving" / "audit.jsonl"
    audit.unlink()
    audit.mkdir()
    while ask(known, trial, "canary", None):
        pass
    again = routes(home)
    audit.rmdir()
    again.put("m", Experiment("shadow", 3), 1, "ada")
    assert [(line["what"], line["by"]) for line in reversed(Audit(home).newest(9))] == [
        ("experiment ended", "the platform itself"),
        ("experiment begun", "ada"),
    ]


def test_a_line_of_the_audit_that_was_cut_off_takes_no_other_along(home: Settings) -> None:
    audit = Audit(home)
    audit.write("ada", "first")
    with (home.home / "serving" / "audit.jsonl").open("ab") as file:
        file.write(b'{"at":1,"by":"a')
    audit.write("ada", "second")
    assert [line["what"] for line in audit.newest(9)] == ["second", "first"]


def test_a_shadow_that_is_worse_for_long_can_still_be_reported(home: Settings) -> None:
    known, trial = begun(home, Experiment("shadow", 2))
    for n in range(3_000):
        trial.compare_losses(2.0, 1.0, 1.0)
        trial.count_outcome(n, "shadow", 2.0)
    known.end_if_worse("m", trial)
    report = known.report("m")
    assert report is not None
    assert json.loads(json.dumps(report, allow_nan=False))["comparison"]["evidence"] > report["comparison"]["ends_at"]
