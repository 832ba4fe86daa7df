"""Feedback that was answered and is not in the lake yet: on disk before the answer, so that a killed process loses
none.

Two files of JSON lines. New lines go to the first. When a round of commits begins it becomes the second, and when all
of the round is committed the second is deleted: what is in a file is in the lake, or will be given to it again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

log = logging.getLogger(__name__)


class Journal:
    """Not locked: its owner lets one thread in at a time."""

    def __init__(self, folder: Path) -> None:
        self._open, self._closing = folder / "feedback.jsonl", folder / "feedback-closing.jsonl"
        self._file: BinaryIO | None = None

    def append(self, rows: Sequence[Sequence[Any]]) -> None:
        """One line. Raises OSError where it cannot be kept."""
        if self._file is None:
            self._open.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open.open("ab", buffering=0)
        # What a full disk or a kill has cut off before must not take it along: so a line has an end before it, too.
        line = b"\n" + orjson.dumps([list(row) for row in rows]) + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(f"{self._open}: the disk took a part of a line only")

    def lines(self) -> list[list[list[Any]]]:
        """All that is kept, the oldest first; a line that was cut off has not been answered."""
        found = []
        for path in (self._closing, self._open):
            for line in filter(None, path.read_bytes().split(b"\n") if path.exists() else []):
                try:
                    found.append(orjson.loads(line))
                except orjson.JSONDecodeError:
                    log.warning("%s: a line of %d bytes is left out: it was cut off", path, len(line))
        return found

    def close_round(self) -> None:
        """From here on lines belong to the next round. Nothing, while an earlier round is not committed."""
        if self._closing.exists() or not self._open.exists():
            return
        if self._file is not None:
            self._file.close()
            self._file = None
        self._open.replace(self._closing)

    def settle(self) -> None:
        """The round is committed."""
        self._closing.unlink(missing_ok=True)
