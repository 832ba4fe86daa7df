"""The state of the history: what makes it now, and what does not."""

import json
from dataclasses import replace

from city.settings import Settings
from city.stack.history_plan import FINISHED, make_plan
from city.stack.history_progress import HistoryProgress, Report, history_status, is_recent_missing, is_under_way
from city.stack.state import SUPERVISOR
from city.stack.status import status
from tests.city.stack.histories import end_process, write_progress, write_supervisor

RUNNING = {"state": "running", "percent": 62, "step": "table vehicle_speeds", "days": 14, "error": None}


def test_a_city_without_a_history_has_no_state_of_one(config: Settings) -> None:
    assert history_status(config) is None
    write_progress(config, 100, "finished", days=0)
    assert history_status(config) is None
    assert status(config)["history"] is None


def test_a_living_process_makes_the_history(config: Settings) -> None:
    write_progress(config, 62)
    assert status(config)["history"] == RUNNING


def test_a_process_that_is_dead_makes_nothing(config: Settings) -> None:
    write_progress(config, 62)
    end_process(config)
    assert history_status(config) == RUNNING | {"state": "down"}
    write_supervisor(config, "kafka", "history")
    assert history_status(config) == RUNNING | {"state": "restarting"}
    write_supervisor(config, "kafka")
    assert history_status(config) == RUNNING | {"state": "down"}, "this start makes no history"


def test_a_supervisor_that_ends_or_is_dead_starts_nothing_again(config: Settings) -> None:
    write_progress(config, 62)
    end_process(config)
    for change in ({"stopping": True}, {"created": 1.0}):
        write_supervisor(config, "history")
        path = config.run / SUPERVISOR
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        assert history_status(config) == RUNNING | {"state": "down"}


def test_a_step_that_fails_is_tried_again_by_the_supervisor(config: Settings) -> None:
    report = write_progress(config, 62)
    write_supervisor(config, "history")
    report.fail(OSError("disk full\nmore"))
    failed = RUNNING | {"state": "restarting", "error": "table vehicle_speeds: disk full"}
    assert history_status(config) == failed
    write_progress(config, 62)
    assert history_status(config) == RUNNING, "the next try"


def test_a_failure_before_the_first_step_has_the_days(config: Settings) -> None:
    Report(config, 14).fail(ValueError("no such table"))
    history = history_status(config)
    assert history is not None
    assert (history["days"], history["error"]) == (14, "begins: no such table")


def test_the_stream_waits_only_for_the_newest_part_of_a_history_that_is_to_be_made(config: Settings) -> None:
    assert not is_recent_missing(config), "a city without a plan"
    config = config.model_copy(update={"history_days": 3})
    make_plan(config)
    assert is_recent_missing(config)
    assert not is_recent_missing(config.model_copy(update={"history_days": 0})), "the history is turned off"
    report = Report(config, 3)
    progress = HistoryProgress(5, "bronze", 3, is_recent_made=False, is_finished=False)
    report.write(progress)
    assert is_recent_missing(config)
    report.fail(OSError("disk full"))
    assert not is_recent_missing(config), "a city without a history streams too"
    report.write(replace(progress, is_recent_made=True))
    assert not is_recent_missing(config)
    report.write(progress)
    (config.home / FINISHED).write_text('["traffic"]')
    assert is_recent_missing(config), "the other domains have none"
    assert not is_recent_missing(config.model_copy(update={"domains": ["traffic"]}))
    (config.home / FINISHED).write_text("")  # by an older release
    assert not is_recent_missing(config)


def test_a_finished_history_is_done_whatever_became_of_its_process(config: Settings) -> None:
    write_progress(config, 100, "finished")
    end_process(config)
    history = history_status(config)
    assert history is not None
    assert history["state"] == "done"


def test_a_history_that_was_finished_with_other_domains_is_not_complete(config: Settings) -> None:
    config = config.model_copy(update={"history_days": 3})
    make_plan(config)
    (config.home / FINISHED).write_text('["traffic"]')
    write_progress(config, 100, "finished")
    history = history_status(config)
    assert history is not None
    assert (history["state"], history["percent"]) == ("down", 99)
    history = history_status(config.model_copy(update={"domains": ["traffic"]}))
    assert history is not None
    assert (history["state"], history["percent"]) == ("done", 100)


def test_a_history_is_under_way_also_between_the_tries_of_a_step(config: Settings) -> None:
    assert not is_under_way(config)
    write_progress(config, 62)
    assert is_under_way(config)
    end_process(config)
    assert not is_under_way(config)
    write_supervisor(config, "history")
    assert is_under_way(config)
