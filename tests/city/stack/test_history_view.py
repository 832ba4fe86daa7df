"""The progress of the history on a terminal, and in a log."""

import io

import pytest

from city.settings import Settings
from city.stack.console import _View, show
from city.stack.history_progress import history_status
from city.stack.history_view import HistoryLines, describe_history
from city.stack.part import Spec
from city.stack.reports import HistoryStatus
from city.stack.status import status
from city.stack.supervisor import Supervisor
from city.stack.terminal import Terminal
from tests.city.stack.histories import end_process, write_progress, write_supervisor

RUNNING = HistoryStatus(state="running", percent=62, step="table vehicle_speeds", days=14, error=None)


def changed(**fields: object) -> HistoryStatus:
    return {**RUNNING, **fields}  # type: ignore[typeddict-item]


def page(config: Settings, is_terminal: bool) -> str:
    output = io.StringIO()
    show(status(config), Terminal(file=output, force_terminal=is_terminal, width=120, soft_wrap=True))
    return output.getvalue()


def test_each_state_has_its_text() -> None:
    assert describe_history(RUNNING) == "62 % of 14 days, table vehicle_speeds"
    assert describe_history(changed(state="restarting")) == "62 % of 14 days, continues in a moment"
    failed = changed(state="restarting", error="table a: disk\nfull")
    assert describe_history(failed) == "failed at 62 % of 14 days, and is tried again: table a: disk full"
    assert describe_history(changed(state="down")) == (
        "stopped at 62 % of 14 days, and the next `city up` with simulators continues it"
    )
    assert describe_history(changed(state="done", percent=100)) == "14 days, complete"


def test_a_log_gets_a_line_for_each_ten_percent_and_kind_of_step() -> None:
    lines = HistoryLines()
    progress = [(percent, f"bronze traffic {percent}") for percent in range(60)]
    progress += [(percent, f"table t{percent}") for percent in range(60, 100)]
    printed = [lines.next_line(changed(percent=percent, step=step)) for percent, step in progress]
    shown = [line for line in printed if line]
    assert len(shown) == 10
    assert shown[0] == "history: 0 % of 14 days, bronze traffic 0"
    assert shown[6] == "history: 60 % of 14 days, table t60"
    assert lines.next_line(changed(percent=99, step="model speed")) == "history: 99 % of 14 days, model speed"
    assert lines.next_line(changed(percent=99, step="model level")) is None


def test_the_end_and_each_failure_get_one_line() -> None:
    lines = HistoryLines()
    assert lines.next_line(RUNNING)
    failed = changed(state="restarting", error="table a: disk full")
    assert lines.next_line(failed) == "history: failed at 62 % of 14 days, and is tried again: table a: disk full"
    assert lines.next_line(failed) is None
    assert lines.next_line(RUNNING), "the next try"
    done = changed(state="done", percent=100)
    assert [lines.next_line(done), lines.next_line(done)] == ["history: 14 days, complete", None]


def test_what_is_not_going_on_gets_no_line() -> None:
    lines = HistoryLines()
    assert [lines.next_line(history) for history in (None, changed(state="down"), changed(state="done"))] == [None] * 3


def test_the_start_prints_the_progress_once(config: Settings) -> None:
    output = io.StringIO()
    view = _View(config, Terminal(file=output, width=200, soft_wrap=True))
    supervisor = Supervisor(config, [Spec("history", "", ["true"])])  # not started, so nothing counts rows
    for percent in (62, 63, 63):
        write_progress(config, percent)
        view.show(supervisor)
    write_progress(config, 100, "finished")
    view.show(supervisor)
    first, last = output.getvalue().splitlines()
    assert first.endswith(" s  history: 62 % of 14 days, table vehicle_speeds")
    assert last.endswith(" s  history: 14 days, complete")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_status_has_a_line_of_the_history(config: Settings, is_terminal: bool) -> None:
    assert "history" not in page(config, is_terminal)
    write_progress(config, 62)
    shown = page(config, is_terminal)
    assert "62 % of 14 days, table vehicle_speeds" in shown
    assert ("━━━━" in shown) == is_terminal
    write_progress(config, 100, "finished")
    assert "history: 14 days, complete" in page(config, is_terminal)


def test_the_status_of_a_failed_history_has_no_bar(config: Settings) -> None:
    write_supervisor(config, "history")
    write_progress(config, 62).fail(OSError("disk full"))
    end_process(config)
    assert history_status(config) is not None
    shown = page(config, is_terminal=True)
    assert "failed at 62 % of 14 days, and is tried again: table vehicle_speeds: disk full" in shown
    assert "━" not in shown
