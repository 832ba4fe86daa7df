"""Journal of outcomes that are acknowledged but not yet in the lake. Outcomes are on disk before the response, so that
a killed process loses none.

The journal consists of two files of JSON lines. New lines go to the first file. When a round of commits begins, the
first file becomes the second. When the whole round is committed, the second file is deleted. Every outcome in a file is
in the lake or will be written to it again.

A third file has the outcomes of models that the server does not declare. No round writes them, so they would keep the
other two files from ever being deleted. They wait for a server that declares their model.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

log = logging.getLogger(__name__)


class Journal:
    """Appends outcomes to disk and reads them back. It has no lock; its owner admits one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._open, self._closing = folder / "feedback.jsonl", folder / "feedback-closing.jsonl"
        self._undeclared = folder / "feedback-undeclared.jsonl"
        self._file: BinaryIO | None = None

    def append(self, rows: Sequence[Sequence[Any]]) -> None:
        """Appends the rows as one line. Raises OSError where the line cannot be written."""
        if self._file is None:
            self._open.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open.open("ab", buffering=0)
        # A full disk or a kill may have cut off the line before. The leading line end separates it from this line.
        line = b"\n" + orjson.dumps([list(row) for row in rows]) + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(f"{self._open}: the disk took a part of a line only")

    def lines(self) -> list[list[list[Any]]]:
        """Returns the lines of all files, the oldest first. Omits a line that was cut off, because its outcomes were
        not acknowledged."""
        return [line for path in (self._undeclared, self._closing, self._open) for line in _read_lines(path)]

    def keep_undeclared(self, rows: Sequence[Sequence[Any]]) -> None:
        """Keeps the rows for a server that declares their model. Rows of before that are not among them have a declared
        model by now, and go to the open round. Raises OSError where a file cannot be written; it can be called again.
        """
        kept = {tuple(row) for row in rows}
        declared = [row for line in _read_lines(self._undeclared) for row in line if tuple(row) not in kept]
        if declared:
            self.append(declared)
        if not rows:
            self._undeclared.unlink(missing_ok=True)
            return
        written = self._undeclared.with_suffix(".tmp")
        written.write_bytes(orjson.dumps([list(row) for row in rows]) + b"\n")
        written.replace(self._undeclared)

    def close_round(self) -> None:
        """Begins a new round, to which all later lines belong. Does nothing while an earlier round is not committed."""
        if self._closing.exists() or not self._open.exists():
            return
        if self._file is not None:
            self._file.close()
            self._file = None
        self._open.replace(self._closing)

    def delete_closed_round(self) -> None:
        """Deletes the lines of the closed round, after its commit."""
        self._closing.unlink(missing_ok=True)


def _read_lines(path: Path) -> list[list[list[Any]]]:
    lines = []
    for line in filter(None, path.read_bytes().split(b"\n") if path.exists() else []):
        try:
            lines.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            log.warning("%s: skipped an incomplete line of %d bytes", path, len(line))
    return lines
