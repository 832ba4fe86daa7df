"""Text on a terminal. Titles, errors, rows and file names come from elsewhere: they are shown as they are."""

from typing import Any

from rich.console import Console, RenderableType
from rich.progress import TextColumn
from rich.status import Status
from rich.text import Text


class Terminal(Console):
    """A console that reads no markup and no emoji codes in the text that it is given: rich would take `[/GB]` for the
    end of a style, `[[rule]]` for a style, and `:car:` for a picture. What we colour ourselves is a `Text`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """As rich's, which would read markup in any string. Update it with a `Text`, for the same reason."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)


def description_column() -> TextColumn:
    """A progress bar's description, as it is: it may be the name of a file."""
    return TextColumn("{task.description}", markup=False)


def one_line(text: str) -> str:
    """Text without line breaks, and without the control characters that a terminal would obey."""
    joined = " ".join(text.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in joined)
