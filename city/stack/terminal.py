"""Prints text on a terminal. Titles, errors, rows and file names come from outside, so they are printed literally."""

from typing import Any

from rich.console import Console, RenderableType
from rich.progress import TextColumn
from rich.status import Status
from rich.text import Text


class Terminal(Console):
    """A console that prints text literally, without markup and emoji codes.

    rich reads `[/GB]` as the end of a style, `[[rule]]` as a style, and `:car:` as a picture. Use a `Text` for colours.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Shows rich's status spinner with a literal text.

        rich reads markup in a string, so update the spinner with a `Text`.
        """
        return super().status(Text(status) if isinstance(status, str) else status, **options)


def description_column() -> TextColumn:
    """Returns the column of a progress bar's description, printed literally: it may be the name of a file."""
    return TextColumn("{task.description}", markup=False)


def one_line(text: str) -> str:
    """Returns the text without line breaks, and without control characters, which a terminal would execute."""
    joined = " ".join(text.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in joined)
