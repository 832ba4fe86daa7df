"""The list of alarms, on terminals of several widths and where there is none."""

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from city.alerts.listing import show
from city.alerts.model import Alarm
from city.stack.terminal import Terminal

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
WORDS = " ".join(f"word{number:02}" for number in range(60))
ALARM = Alarm(7, "system/kafka", "error", WORDS, "system", True, False, 3, NOW, NOW, "ada", 0, flapping=True)


def listed(alarm: Alarm, width: int, terminal: bool = True) -> list[str]:
    output = io.StringIO()
    size = {"width": width, "height": 50}  # of both given, whatever TERM says
    show([alarm], Terminal(file=output, **size, force_terminal=terminal, color_system=None))
    return output.getvalue().splitlines()


def test_a_narrow_terminal_has_a_record_for_each_alarm() -> None:
    head, times, *title, cause = listed(ALARM, 80)
    assert head == "7   error, active, unacknowledged, flapping"
    assert "    3 times, since " in times
    assert times.endswith(", ada's")
    assert len(title) == 6
    assert all(len(line) <= 80 for line in title)
    assert " ".join(" ".join(title).split()) == WORDS
    assert cause.strip() == "system/kafka"


def test_without_a_terminal_a_title_is_one_line() -> None:
    assert listed(ALARM, 80, terminal=False)[2:] == [f"    {WORDS}", "    system/kafka"]
    assert listed(ALARM, 200, terminal=False)[2:] == [f"    {WORDS}", "    system/kafka"]


def test_a_wide_terminal_has_a_table() -> None:
    lines = listed(replace(ALARM, title="kafka is down"), 160)
    assert len(lines) == 3
    assert "kafka is down" in lines[1]
    assert lines[2].strip() == "system/kafka"


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("title", ["no model [/GB]", "a table [[rule]] with a name", "[red]", "two\nlines", "\x1b[2J"])
def test_a_title_is_shown_as_it_is(title: str, width: int) -> None:
    shown = "\n".join(listed(replace(ALARM, title=title), width))
    assert " ".join(title.split()).replace("\x1b", "�") in shown
