"""What a person is shown is what there is: no text from elsewhere is read as markup."""

import io

import pytest
from rich.progress import Progress
from rich.table import Table

from city.stack.console import show
from city.stack.terminal import Terminal, description_column, one_line

TEXTS = ["no model [/GB]", "each is a table [[rule]] with a name", "[red]", "a :car: is late", "[link=x]"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_shown_as_it_is(text: str) -> None:
    output = io.StringIO()
    shown = Terminal(file=output, width=200)
    table = Table(text)
    table.add_row(text)
    shown.print(table)
    shown.print(text)
    shown.log(text)
    with shown.status(text) as status:
        shown.print(status.renderable)
    with Progress(description_column(), console=shown) as progress:
        progress.add_task(text, total=1)
    assert output.getvalue().count(text) == 6


@pytest.mark.parametrize("text", TEXTS)
def test_the_errors_of_parts_are_shown_as_they_are(text: str) -> None:
    output = io.StringIO()
    part = {"address": text, "state": "restarting", "last_error": f"{text}\n\x1b[2J", "events_per_second": None}
    show(
        {
            "parts": {"kafka": part | {"lag": None, "p95_ms": None}},
            "bronze_rows": {text: 1},
            "quarantined": {text: 0},
            "alarm_channels": {"slack": text},
        },
        Terminal(file=output, soft_wrap=True, width=200),
    )
    assert output.getvalue().count(text) == 4
    assert f"alarm channel slack: {text}\n" in output.getvalue()
    assert f"kafka: {text} �[2J\n" in output.getvalue()


def test_a_line_is_a_line_and_moves_no_cursor() -> None:
    assert one_line("a\n b\t\x1b[31mc\x07") == "a b �[31mc�"
