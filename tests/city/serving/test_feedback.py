"""What came of predictions, through a real server: each counts once, for what it belongs to, whatever happened
since."""

import asyncio
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests
from sklearn.metrics import precision_recall_fscore_support

from city.models import champions
from city.models.registry import Registry, RegistryAway
from city.serving import feedback, predictor, predictor_tasks, record, versions
from city.serving.outcome_scores import OutcomeScores
from city.serving.record_queries import make_prediction_id, prediction_day
from city.serving.routing import Routes
from city.serving.trial import Experiment, Limits
from city.settings import Settings
from city.stack.embedded import settings_at
from city.web.audit import Audit
from tests.city.serving.served import FEATURES, LEVEL, ROWS, SPEED, process, registered, serving, taught
from tests.city.serving.test_predict import Server, load
from tests.city.serving.test_record import prediction_record
from tests.live import until

_fresh = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config, registry = city(tmp_path_factory.mktemp("home"), versions=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(champions, "POLL_SECONDS", 0.2)
        patch.setattr(record, "_WRITE_SECONDS", 0.2)
        with serving(config, [SPEED]) as url:
            yield Server(url, config, registry)


def city(home: Path, versions: int = 2) -> tuple[Settings, Registry]:
    """Versions of a model, of which the first is the champion."""
    config = settings_at(home, home)
    registry = Registry(config)
    for seed in range(versions):
        registered(registry, SPEED, taught(SPEED, 3 * seed), champion=seed == 0)
    return config, registry


def ask(url: str, **options: Any) -> dict[str, Any]:
    """A prediction of inputs that nobody asked about before."""
    features = {**FEATURES, "speed_mean": 5 + next(_fresh) / 100}
    response = requests.post(f"{url}/predict", json={"model_name": "speed", "features": features} | options, timeout=20)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def tell(url: str, number: str, outcome: Any) -> requests.Response:
    return requests.post(f"{url}/feedback", json={"id": number, "outcome": outcome}, timeout=20)


def route(url: str, **experiment: Any) -> None:
    begun = requests.put(f"{url}/models/speed/routing", json=experiment, timeout=20)
    assert begun.status_code == 200, begun.text


def routing(url: str) -> dict[str, Any]:
    report: dict[str, Any] = requests.get(f"{url}/models/speed/routing", timeout=20).json()
    return report


def outcomes(config: Settings, model: str = "speed") -> pl.DataFrame:
    path = config.lake / "outcomes" / model
    return pl.read_delta(str(path)) if path.exists() else pl.DataFrame(schema={"id": pl.String})


def test_an_id_says_its_day_and_ids_are_in_order_of_time() -> None:
    assert str(prediction_day(make_prediction_id(1_795_680_804.2, "ab12", 7))) == "2026-11-26"
    assert make_prediction_id(1.0, "zz", 99) < make_prediction_id(2.0, "aa", 1)
    for none in ("", "none", "123", "x" * 11 + "-1", "f" * 11, "f" * 12 + "-ab-1"):
        assert prediction_day(none) is None, none
    assert str(prediction_day("f" * 11 + "-ab-1")) == "2527-06-23", "the last day that an id can have"


def test_the_same_outcome_again_is_answered_alike_and_another_one_is_refused(server: Server) -> None:
    made = ask(server.url)
    first = tell(server.url, made["id"], made["prediction"] + 2).json()
    assert first == {"id": made["id"], "model": "speed", "version": 1, "loss": pytest.approx(2), "repeated": False}
    again = tell(server.url, made["id"], made["prediction"] + 2)
    assert (again.status_code, again.json()) == (200, first | {"repeated": True})
    other = tell(server.url, made["id"], made["prediction"] + 3)
    assert other.status_code == 409
    assert "was judged by the outcome" in other.json()["detail"]
    assert other.json()["errors"][0]["field"] == "outcome"
    until(lambda: made["id"] in outcomes(server.config)["id"].to_list())
    assert outcomes(server.config).filter(pl.col("id") == made["id"]).height == 1


def test_many_who_tell_the_same_at_once_are_counted_once(server: Server) -> None:
    route(server.url, kind="ab", version=2, share=0.5)
    made = [ask(server.url, key=str(n)) for n in range(8)]
    until(lambda: {m["id"] for m in made} <= set(server.served()["id"]))
    forget(server, *(m["id"] for m in made))
    losses: list[tuple[int, float]] = []

    def tell_all() -> None:
        for one in made:
            response = tell(server.url, one["id"], 10)
            losses.append((response.status_code, response.json().get("loss")))

    threads = [threading.Thread(target=tell_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {status for status, _ in losses} == {200}
    arms = routing(server.url)["experiment"]["arms"]
    assert sum(arm["outcomes"] for arm in arms.values()) == len(made)
    until(lambda: {m["id"] for m in made} <= set(outcomes(server.config)["id"]))
    assert outcomes(server.config).filter(pl.col("id").is_in([m["id"] for m in made])).height == len(made)


@pytest.mark.parametrize(
    ("number", "outcome", "status", "says"),
    [
        ("none", 1, 404, "give the `id` of an answer of /predict"),
        (make_prediction_id(1_700_000_000, "abcd", 1), 1, 404, "was recorded, or its day is not in the lake any more"),
        ("f" * 11 + "-ab-1", 1, 404, "no prediction"),
    ],
)
def test_an_unknown_prediction_is_told_as_such(
    server: Server, number: str, outcome: Any, status: int, says: str
) -> None:
    response = tell(server.url, number, outcome)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert says in response.json()["detail"]


def test_an_outcome_that_is_no_number_spoils_nothing(server: Server) -> None:
    made = ask(server.url)
    for outcome in ("nan", "inf", "-Infinity", "fast", ""):
        response = tell(server.url, made["id"], outcome)
        assert response.status_code == 422, response.text
        assert response.json()["errors"] == [{"field": "outcome", "message": "give a finite number"}]
    assert tell(server.url, made["id"], "12.5").json()["repeated"] is False
    assert tell(server.url, made["id"], 12.5).json()["repeated"] is True


def test_a_shadow_and_the_champion_are_judged_by_the_same_outcome_each_by_its_own_answer(server: Server) -> None:
    route(server.url, kind="shadow", version=2, share=1.0)
    made = ask(server.url)
    until(lambda: server.served().filter(pl.col("id") == made["id"]).height == 2)
    assert tell(server.url, made["id"], made["prediction"]).json() | {"loss": 0} == {
        "id": made["id"],
        "model": "speed",
        "version": 1,
        "loss": 0,
        "repeated": False,
    }
    until(lambda: outcomes(server.config).filter(pl.col("id") == made["id"]).height == 2)
    rows = outcomes(server.config).filter(pl.col("id") == made["id"]).sort("version")
    assert rows["role"].to_list() == ["champion", "shadow"]
    assert rows["loss"][0] == pytest.approx(0, abs=1e-6)
    assert rows["loss"][1] > 0.1
    assert rows["most_gain"][1] == pytest.approx(rows["loss"][1])
    arms = routing(server.url)["experiment"]["arms"]
    assert {role: arm["outcomes"] for role, arm in arms.items()} == {"champion": 1, "shadow": 1}


def test_an_outcome_that_came_before_the_control_had_answered_judges_it_too(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, beside = threading.Event(), predictor.Predictor._run_in_background

    async def slow(*of: Any) -> None:
        await asyncio.to_thread(released.wait, 20)
        await beside(*of)

    monkeypatch.setattr(predictor.Predictor, "_run_in_background", slow)
    route(server.url, kind="canary", version=2, share=1.0)
    early = ask(server.url)
    tell(server.url, early["id"], 20.0)
    released.set()
    until(lambda: outcomes(server.config).filter(pl.col("id") == early["id"]).height == 2)
    rows = outcomes(server.config).filter(pl.col("id") == early["id"])
    assert sorted(rows["role"]) == ["canary", "control"]
    assert rows["version"].n_unique() == 2
    arms = routing(server.url)["experiment"]["arms"]
    assert {role: arm["outcomes"] for role, arm in arms.items()} == {"champion": 1, "canary": 1}


def test_late_outcomes_of_an_old_canary_do_not_count_for_a_new_one(server: Server) -> None:
    route(server.url, kind="canary", version=2, share=1.0)
    old = ask(server.url)
    assert (old["version"], old["role"]) == (2, "canary")
    for version in (3, 2):  # another version, and the same one tried again
        route(server.url, kind="canary", version=version, share=1.0)
        new = ask(server.url)
        assert tell(server.url, new["id"], 20.0).status_code == 200
        until(lambda: routing(server.url)["experiment"]["arms"]["champion"]["outcomes"] == 1)
        before = routing(server.url)["experiment"]["arms"]
        late = tell(server.url, old["id"], 20.0)
        assert (late.status_code, late.json()["version"]) == (200, 2)
        after = routing(server.url)["experiment"]["arms"]
        assert {r: a["outcomes"] for r, a in after.items()} == {r: a["outcomes"] for r, a in before.items()}
    until(lambda: old["id"] in outcomes(server.config)["id"].to_list())
    kept = outcomes(server.config).filter(pl.col("id") == old["id"])
    assert set(kept["version"]) == {1, 2}  # recorded for the version that predicted, and its control


def test_old_predictions_and_those_of_batches_are_found_in_their_record(server: Server) -> None:
    made = ask(server.url)
    body = {"model_name": "speed", "instances": [FEATURES, {**FEATURES, "speed_mean": 40.0}]}
    batch = requests.post(f"{server.url}/predict/batch", json=body, timeout=20).json()["predictions"]
    assert tell(server.url, batch[0]["id"], batch[0]["prediction"] + 1).json()["loss"] == pytest.approx(1, abs=1e-3)
    until(lambda: {made["id"], batch[1]["id"]} <= set(server.served()["id"]))
    forget(server, made["id"])
    assert tell(server.url, batch[1]["id"], batch[1]["prediction"] + 1).json()["loss"] == pytest.approx(1, abs=1e-3)
    assert tell(server.url, made["id"], made["prediction"] + 1).json()["loss"] == pytest.approx(1)
    until(lambda: made["id"] in outcomes(server.config)["id"].to_list())
    forget(server, made["id"])
    assert tell(server.url, made["id"], made["prediction"] + 1).json()["repeated"] is True
    assert tell(server.url, made["id"], made["prediction"] + 2).status_code == 409


def forget(server: Server, *numbers: str) -> None:
    """As if a hundred thousand others had come since."""
    import gc

    gc.unfreeze()  # the server freezes what it has, and what is frozen is not listed
    stores = [o for o in gc.get_objects() if isinstance(o, feedback.Feedback)]
    assert stores
    for store in stores:
        for number in numbers:
            store._judgements.forget(number)
            store._store.forget(number)


def test_experiments_that_are_replaced_under_load_fail_no_request(server: Server) -> None:
    kinds = itertools.cycle(("canary", "ab", "shadow"))
    with load(server) as answers:
        for n in range(24):
            route(server.url, kind=next(kinds), version=2 + n % 2, share=0.5)
            if n % 5 == 4:
                requests.delete(f"{server.url}/models/speed/routing", timeout=20)
            seen = len(answers)
            until(lambda seen=seen: len(answers) > seen + 8)
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {1, 2, 3}


def test_a_kill_loses_no_outcome_that_was_answered_and_none_is_counted_twice(tmp_path: Path) -> None:
    config, _ = city(tmp_path)
    losses: dict[str, float] = {}
    with process(config) as running:
        route(config.serve, kind="canary", version=2, share=0.5)
        made = [ask(config.serve) for _ in range(60)]
        path = config.lake / "served" / "speed"
        until(lambda: {m["id"] for m in made} <= set(pl.read_delta(str(path))["id"]))
        for one in made[:40]:
            losses[one["id"]] = tell(config.serve, one["id"], 15.0).json()["loss"]
        until(lambda: routing(config.serve)["experiment"]["arms"]["canary"]["outcomes"])
        before = routing(config.serve)["experiment"]
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    with process(config):
        until(lambda: tell(config.serve, made[0]["id"], 15.0).status_code == 200)
        after = routing(config.serve)["experiment"]
        for role, arm in before["arms"].items():
            assert (after["arms"][role]["outcomes"], after["arms"][role]["loss"]) == (
                arm["outcomes"],
                pytest.approx(arm["loss"]),
            )
        for number, loss in losses.items():
            again = tell(config.serve, number, 15.0).json()
            assert (again["repeated"], again["loss"]) == (True, pytest.approx(loss))
        assert tell(config.serve, made[0]["id"], 16.0).status_code == 409
        for one in made[40:]:  # predicted before the kill, told after it
            assert tell(config.serve, one["id"], 15.0).json()["repeated"] is False
        counted = routing(config.serve)["experiment"]["arms"]
        canaries = sum(one["role"] == "canary" for one in made)
        assert counted["canary"]["outcomes"] == canaries
        assert counted["champion"]["outcomes"] == 60  # its own, and where it was the control
        until(lambda: outcomes(config).filter(pl.col("role") != "control").height == 60)
        assert outcomes(config).select("id", "version").is_duplicated().sum() == 0


def test_an_outcome_counts_in_the_last_hour_after_a_clock_that_was_ahead_is_set_back(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {SPEED.name: SPEED}
    store, followed = record.PredictionStore(config, models), OutcomeScores(config, models)
    taking = feedback.Feedback(config, models, store, Routes(config, Audit(config), models), followed)
    asyncio.run(taking.recover())
    ahead = time.time() + 7200
    for number in (1, 2):
        store.add(prediction_record(number))
        with monkeypatch.context() as patch:
            if number == 1:
                patch.setattr(time, "time", lambda: ahead)
            asyncio.run(taking.judge(f"id-{number}", 1.0, "test"))
    assert followed.scores("speed", prediction_record(2).version)["hour"]["outcomes"] == 1


def scores(url: str, of: str) -> dict[str, float]:
    """The figures of a champion at /metrics."""
    text = requests.get(f"{url}/metrics", timeout=20).text
    figures = re.findall(rf'model_performance_score{{metric="(\w+)",model="level",of="{of}",version="1"}} (\S+)', text)
    return {name: float(value) for name, value in figures}


def test_what_comes_is_in_the_figures_of_the_champion_at_once_and_after_a_restart(tmp_path: Path) -> None:
    config = settings_at(tmp_path, tmp_path)
    registered(Registry(config), LEVEL, taught(LEVEL))
    features: dict[str, Any] = ROWS.drop_nulls().select(LEVEL.inputs).row(0, named=True)
    said, outcomes = [], []
    with serving(config, [LEVEL]) as url:
        for number in range(24):
            made = ask(url, model_name="level", features=features | {"speed_mean": 2.0 * number})
            said.append(made["prediction"])
            outcomes.append(made["prediction"] if number % 4 else "medium")
            for _ in range(2):
                assert tell(url, made["id"], outcomes[-1]).status_code == 200
        precision, recall, f1, _ = precision_recall_fscore_support(outcomes, said, average="macro", zero_division=0)
        right = sum(one == other for one, other in zip(said, outcomes, strict=True)) / 24
        known = {"outcomes": 24, "accuracy": right, "precision": precision, "recall": recall, "f1": f1}
        assert scores(url, "recent") == scores(url, "hour") == pytest.approx(known)
        assert scores(url, "held_out") == {"model_log_loss": 1.0, "naive_log_loss": 2.0}, "those of the training stay"
    with serving(config, [LEVEL]) as url:
        until(lambda: scores(url, "recent") == pytest.approx(known))


def test_an_experiment_waits_for_a_registry_that_is_away_when_the_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = city(tmp_path)
    known = Routes(config, Audit(config), {"speed": SPEED})
    known.put("speed", Experiment("canary", 2, 1.0, Limits(), "ada", 7.0), 1, "ada")
    loaded, refused = versions.loaded, itertools.count()

    def away(*of: Any) -> Any:
        if next(refused) < 2:
            raise RegistryAway("it is unavailable")
        return loaded(*of)

    monkeypatch.setattr(versions, "loaded", away)
    monkeypatch.setattr(predictor_tasks, "_AGAIN_SECONDS", 0.05)
    with serving(config, [SPEED]) as url:
        assert until(lambda: ask(url)["version"] == 2)
        assert routing(url)["experiment"]["version"] == 2
