"""The prediction store with its real process: nothing is lost, nothing stands twice."""

import json
import os
import shutil
import signal
import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from city.serving import record
from city.serving.answer import Answer
from city.serving.journal import Journal
from city.serving.record import PredictionRecord, PredictionStore
from city.serving.record_queries import Outcome, make_prediction_id
from city.settings import Settings
from tests.city.serving.served import LEVEL, SPEED
from tests.live import until


@pytest.fixture
def store(config: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[PredictionStore]:
    monkeypatch.setattr(record, "_WRITE_SECONDS", 0.1)
    made = PredictionStore(config, {SPEED.name: SPEED})
    made.start()
    yield made
    made.stop()


def prediction_record(number: int) -> PredictionRecord:
    row = np.full(len(SPEED.inputs), number, np.float32)
    row[1] = np.nan
    said = Answer(12.3456789, None, 10.0, 15.0, [12.3456789])
    output = array("d", said.output).tobytes()
    at = time.time()
    return PredictionRecord(
        f"id-{number}", at, SPEED.name, 3, "champion", "ada", None, row.tobytes(), said, output, 1.5, False
    )


def written(config: Settings, layer: str = "served") -> pl.DataFrame:
    return pl.read_delta(str(config.lake / layer / SPEED.name))


def test_an_answer_and_what_came_of_it_are_kept_as_they_were(config: Settings, store: PredictionStore) -> None:
    store.add(prediction_record(7))
    store.add_outcomes([Outcome("id-7", time.time(), SPEED.name, 3, "champion", "ada", "11.5", 0.85)])
    until(lambda: store.written_rows == 2)
    (row,) = written(config).rows(named=True)
    assert (row["id"], row["version"], row["prediction"], row["low"], row["output"]) == (
        "id-7",
        3,
        "12.3457",
        10.0,
        [12.3456789],
    )
    assert row["inputs"].startswith(f'{{"{SPEED.inputs[0]}":7.0,"{SPEED.inputs[1]}":null,')
    assert row["at"].timestamp() == pytest.approx(time.time(), abs=60)
    (outcome,) = written(config, "outcomes").rows(named=True)
    assert (outcome["outcome"], outcome["loss"]) == ("11.5", 0.85)


def test_a_killed_recorder_is_started_again_and_writes_each_answer_once(
    config: Settings, store: PredictionStore
) -> None:
    recorder = store._recorder
    killed = set()
    for number in range(3_000):
        store.add(prediction_record(number))
        if number % 600 == 0:
            time.sleep(0.05)
        if number % 1_000 == 999 and (pid := until(lambda: recorder.pid)) not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
            until(lambda dead=pid: store.waiting_rows == 0 or recorder.pid != dead)
    store.stop()
    assert len(killed) >= 2
    assert recorder.pid not in killed
    assert store.waiting_rows == 0
    assert sorted(written(config)["id"]) == sorted(f"id-{number}" for number in range(3_000))


def test_a_batch_that_is_given_again_is_written_once(config: Settings) -> None:
    made = PredictionStore(config, {SPEED.name: SPEED})
    batch = made._make_batch("served", SPEED.name, record._pack([prediction_record(1)]))
    for _ in range(2):
        made._recorder.write(batch)
    made._recorder.write(made._make_batch("served", SPEED.name, record._pack([prediction_record(2)])))
    made._recorder.close()
    assert sorted(written(config)["id"]) == ["id-1", "id-2"]


def test_what_an_absent_lake_did_not_take_is_written_when_it_is_back(config: Settings, store: PredictionStore) -> None:
    config.lake.parent.mkdir(parents=True, exist_ok=True)
    Path(config.lake).write_text("no folder")
    store.add(prediction_record(1))
    until(lambda: store.error is not None)
    store.add(prediction_record(2))
    assert store.waiting_rows == 2
    config.lake.unlink()
    until(lambda: store.written_rows == 2)
    assert store.error is None
    assert sorted(written(config)["id"]) == ["id-1", "id-2"]


def test_a_recorder_that_cannot_be_started_is_tried_again(
    config: Settings, store: PredictionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(config.home / "no-python"))
        store.add(prediction_record(1))
        assert "cannot start" in until(lambda: store.error)
    until(lambda: store.written_rows == 1)
    assert store.error is None
    assert written(config)["id"].to_list() == ["id-1"]


def test_a_loop_that_raises_comes_back_and_loses_nothing(
    config: Settings, store: PredictionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, failed = record._pack, []

    def broken(entries: Sequence[Any]) -> list[bytes]:
        failed.append(len(entries))
        if len(failed) == 1:
            raise SystemExit("what nobody thought of")
        return packed(entries)

    monkeypatch.setattr(record, "_pack", broken)
    store.add(prediction_record(1))
    until(lambda: store.written_rows == 1)
    store.add(prediction_record(2))
    until(lambda: store.written_rows == 2)
    assert store.worker.restarts == 1
    assert store.worker.complaint() == "SystemExit: what nobody thought of"
    assert sorted(written(config)["id"]) == ["id-1", "id-2"]


def test_a_store_that_is_stopped_while_it_waits_to_be_restarted_writes_what_is_left(
    config: Settings, store: PredictionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(record, "_pack", lambda entries: 1 / 0)
        store.add(prediction_record(1))
        until(lambda: store.worker.restarts >= 2 and store.worker.state == "restarting")
    store.stop()
    assert written(config)["id"].to_list() == ["id-1"]


def test_outcomes_that_a_killed_process_took_are_written_once(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_WRITE_SECONDS", 0.1)
    now = time.time()
    rows = [
        Outcome(make_prediction_id(now, "ab", n), now, SPEED.name, 3, "champion", "ada", "11.5", 0.85) for n in range(5)
    ]
    first = PredictionStore(config, {SPEED.name: SPEED})
    first.recover()
    first.add_outcomes(rows[:1])
    first._write()
    first.add_outcomes(rows[:1])  # as a round leaves it that is killed between the commit and the end of its journal
    first._journal.close_round()
    first.add_outcomes(rows[1:2])
    first.add_outcomes(rows[2:4])
    first._recorder.close()
    with (config.home / "serving" / "feedback.jsonl").open("ab") as file:
        file.write(json.dumps([rows[4]]).encode()[:30])  # it was killed in the middle of a line, and had not answered
    for _ in range(2):
        store = PredictionStore(config, {SPEED.name: SPEED})
        store.recover()
        store.start()
        store.stop()
        assert sorted(written(config, "outcomes")["id"]) == [row.id for row in rows[:4]]
    assert Journal(config.home / "serving").lines() == []


def test_a_line_that_was_cut_off_takes_no_other_along(config: Settings) -> None:
    journal = Journal(config.home / "serving")
    journal.append([["a"]])
    with (config.home / "serving" / "feedback.jsonl").open("ab") as file:
        file.write(b'\n[["b')
    journal.append([["c"]])
    assert Journal(config.home / "serving").lines() == [[["a"]], [["c"]]]


def test_a_recovery_that_is_tried_again_queues_nothing_twice(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    outcome = Outcome(make_prediction_id(now, "ab", 1), now, SPEED.name, 3, "champion", "ada", "11.5", 0.85)
    before = PredictionStore(config, {SPEED.name: SPEED})
    before.recover()
    before.add_outcomes([outcome])
    store = PredictionStore(config, {SPEED.name: SPEED, LEVEL.name: LEVEL})
    find = record.find_outcomes

    def away(lake: Path, model: str, numbers: Iterable[str]) -> list[Outcome]:
        if model == LEVEL.name:
            raise OSError("the lake is unavailable")
        return find(lake, model, numbers)

    monkeypatch.setattr(record, "find_outcomes", away)
    for _ in range(3):
        with pytest.raises(OSError, match="unavailable"):
            store.recover()
    monkeypatch.setattr(record, "find_outcomes", find)
    assert store.recover() == store.recover() == [outcome]
    assert store.waiting_rows == 1


def test_outcomes_of_an_undeclared_model_wait_and_the_journal_does_not_grow(config: Settings) -> None:
    now = time.time()
    outcome = Outcome(make_prediction_id(now, "ab", 1), now, LEVEL.name, 3, "champion", "ada", "low", 0.85)
    both = PredictionStore(config, {SPEED.name: SPEED, LEVEL.name: LEVEL})
    both.recover()
    both.add_outcomes([outcome])
    for restart in range(2):
        fewer = PredictionStore(config, {SPEED.name: SPEED})
        fewer.recover()
        for number in range(2, 5):
            identity = make_prediction_id(now, f"s{restart}", number)
            fewer.add_outcomes([Outcome(identity, now, SPEED.name, 3, "champion", "ada", "11.5", 0.85)])
            assert fewer._write()
        fewer._recorder.close()
        assert Journal(config.home / "serving").lines() == [[list(outcome)]]
    assert written(config, "outcomes").height == 6
    again = PredictionStore(config, {SPEED.name: SPEED, LEVEL.name: LEVEL})
    assert again.recover() == [outcome]
    assert Journal(config.home / "serving").lines() == [[list(outcome)]], "it stays there until it is in the lake"
    assert again._write()
    again._recorder.close()
    assert pl.read_delta(str(config.lake / "outcomes" / LEVEL.name))["id"].to_list() == [outcome.id]
    assert Journal(config.home / "serving").lines() == []


def test_a_kill_while_undeclared_outcomes_are_moved_doubles_none(config: Settings) -> None:
    now = time.time()
    outcome = Outcome(make_prediction_id(now, "ab", 1), now, SPEED.name, 3, "champion", "ada", "11.5", 0.85)
    journal = Journal(config.home / "serving")
    journal.append([outcome])
    journal.keep_undeclared([outcome])
    store = PredictionStore(config, {SPEED.name: SPEED})
    assert store.recover() == [outcome]
    assert store.waiting_rows == 1


def test_outcomes_are_on_disk_while_the_lake_is_away(config: Settings, store: PredictionStore) -> None:
    config.lake.parent.mkdir(parents=True, exist_ok=True)
    config.lake.write_text("no folder")
    store.recover()
    now = time.time()
    rows = [
        Outcome(make_prediction_id(now, "ab", n), now, SPEED.name, 3, "champion", "ada", "11.5", 0.85) for n in range(3)
    ]
    store.add_outcomes(rows[:2])
    until(lambda: store.error is not None)
    store.add_outcomes(rows[2:])
    kept = [row[0] for line in Journal(config.home / "serving").lines() for row in line]
    assert kept == [row.id for row in rows]
    config.lake.unlink()
    until(lambda: store.written_rows == 3)
    until(lambda: Journal(config.home / "serving").lines() == [])
    assert sorted(written(config, "outcomes")["id"]) == kept


def test_predictions_are_found_where_they_wait_and_where_they_are_written(config: Settings) -> None:
    store = PredictionStore(config, {SPEED.name: SPEED})
    store.recover()
    number = make_prediction_id(time.time(), "ab", 1)
    beside = prediction_record(1)._replace(id=number, role="control", version=2, experiment="t")
    store.add(prediction_record(1)._replace(id=number, role="canary", experiment="t"))
    assert [p.role for p in store.find(number)[0]] == ["canary"]
    store._write()
    store.add(beside)
    prediction, outcomes = store.find(number)  # one of them is written, the other waits
    assert [(p.role, p.version, p.experiment, p.output) for p in prediction] == [
        ("canary", 3, "t", [12.3456789]),
        ("control", 2, "t", [12.3456789]),
    ]
    assert outcomes == []
    outcome = Outcome(number, time.time(), SPEED.name, 3, "canary", "ada", "11.5", 0.85)
    store.add_outcomes([outcome])
    assert [o.loss for o in store.find(number)[1]] == [0.85]
    store._write()
    assert [o.loss for o in store.find(number)[1]] == [0.85]
    store._recorder.close()
    assert store.find(make_prediction_id(time.time(), "ab", 2)) == ([], [])


def test_tables_of_before_trials_were_recorded_are_read_and_written_on(config: Settings) -> None:
    path = config.lake / "outcomes" / SPEED.name
    number = make_prediction_id(time.time(), "ab", 1)
    old = Outcome(number, time.time(), SPEED.name, 3, "champion", "ada", "11.5", 0.85)
    store = PredictionStore(config, {SPEED.name: SPEED})
    store.recover()
    store.add_outcomes([old])
    store._write()
    rows = pl.read_delta(str(path)).drop("experiment", "most_gain")
    shutil.rmtree(path)
    rows.write_delta(str(path), delta_write_options={"partition_by": ["day"]})
    store.add(prediction_record(1)._replace(id=number))
    assert [o.loss for o in store.find(number)[1]] == [0.85]
    store.add_outcomes([old._replace(id=make_prediction_id(time.time(), "ab", 2), experiment="t")])
    store._write()
    store._recorder.close()
    assert sorted(pl.read_delta(str(path))["experiment"].to_list(), key=str) == [None, "t"]
