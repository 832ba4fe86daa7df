"""Copies of somebody's id in files that are no tables: pages, logs, documents, SQLite databases, rejected messages.

An id is found however text spells it: in UTF-8, with JSON's or HTML's escapes, or percent-encoded, where no letter,
digit or `-` stands beside it, and no `_` before it: `pump_1_s2` is a sensor of `pump_1`. It is covered with as many
`x`, so that a file that others have open stays what it is.
"""

import html
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import polars as pl

_WORD = rb"[0-9A-Za-z_\-\x80-\xff]"
# JSON's escapes of white space end in a letter that is no part of a word.
_BEFORE = rb"(?:(?<!" + _WORD + rb")|(?<=\\[nrtbf]))"
_SQLITE = b"SQLite format 3\x00"
_BUSY_SECONDS = 10.0
_ROUNDS = 3  # an id of x's is covered with what it was
_CHUNK = 16 << 20
_OVERLAP = 64 << 10  # longer than any spelling of an id of MAX_STRING characters


@dataclass(frozen=True)
class Traces:
    """Finds and covers one id, a string of `column` in tables."""

    column: str
    identity: str

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """Every spelling of the id. Of digits alone, only where quotes, bars or tags stand around: else each number
        like it would be meant."""
        spelled = b"".join(map(_spellings, self.identity))
        if self.identity.isdecimal():
            return re.compile(rb"(?<=[\"'|>])( ?)" + spelled + rb"(?= ?(?:\\*[\"']|[|<]))")
        return re.compile(_BEFORE + spelled + rb"(?![0-9A-Za-z\-\x80-\xff])")

    def are_in(self, raw: bytes) -> bool:
        """Whether a message mentions it, in UTF-8 or, where that cannot be read so, in UTF-16 or Latin-1."""
        if self.pattern.search(raw):
            return True
        others = ["utf-16-le", "utf-16-be"] if b"\x00" in raw else []
        try:
            raw.decode()
        except UnicodeDecodeError:
            others.append("latin-1")
        return any(self.pattern.search(raw.decode(other, "replace").encode()) for other in others)

    def covered(self, text: bytes) -> bytes:
        return self.pattern.sub(lambda match: b"x" * len(match[0]), text)

    def in_file(self, path: Path) -> int:
        """How often it stands in the file: rows of Parquet, values of a database, places in text. Files of other
        bytes are not looked into: there any short id stands by chance."""
        kind = _kind(path)
        if kind == "parquet":
            return self._rows(path).height
        if kind == "sqlite":
            return sum(count for _, _, count in self._in_database(path))
        return sum(1 for _ in self._places(path)) if kind == "text" else 0

    def erase(self, path: Path) -> int:
        """Erases it from the file; how often it was there. Raises sqlite3.OperationalError for a database that is
        in use all the time."""
        kind = _kind(path)
        if kind == "parquet":
            return self._erase_rows(path)
        if kind == "sqlite":
            return self._erase_in_database(path)
        return self._cover(path) if kind == "text" else 0

    def _rows(self, path: Path) -> pl.DataFrame:
        frame = pl.read_parquet(path)
        return frame.filter(pl.col(self.column) == self.identity) if self.column in frame.columns else frame.clear()

    def _erase_rows(self, path: Path) -> int:
        rows = self._rows(path).height
        if rows:
            stat, beside = path.stat(), path.with_suffix(".new")
            pl.read_parquet(path).filter(pl.col(self.column) != self.identity).write_parquet(beside)
            beside.replace(path)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # when it was pinned is its file's time
        return rows

    def _places(self, path: Path) -> Iterator[tuple[int, int]]:
        """Begin and length of each place in the file, read piece by piece."""
        with path.open("rb") as file:
            offset, held, last = 0, b"", 0
            while piece := file.read(_CHUNK):
                text = held + piece
                for match in self.pattern.finditer(text):
                    begin, is_cut = offset + match.start(), match.end() == len(text) or (offset and not match.start())
                    if begin >= last and not is_cut:
                        last = offset + match.end()
                        yield begin, len(match[0])
                keep = min(len(text), _OVERLAP)
                offset, held = offset + len(text) - keep, text[-keep:]
            for match in self.pattern.finditer(held):
                if (begin := offset + match.start()) >= last:
                    yield begin, len(match[0])

    def _cover(self, path: Path) -> int:
        places = list(self._places(path))
        if places:
            with path.open("r+b") as file:
                for begin, length in places:
                    file.seek(begin)
                    file.write(b"x" * length)
        return len(places)

    def _connected(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        connection.create_function("has_trace", 1, self._has)
        connection.create_function("without_trace", 1, self._without)
        return connection

    def _has(self, value: object) -> bool:
        return self.pattern.search(_bytes(value)) is not None

    def _without(self, value: object) -> str | bytes:
        covered = self.covered(_bytes(value))
        return covered.decode() if isinstance(value, str) else covered

    def _in_database(self, path: Path) -> list[tuple[str, str, int]]:
        """Tables and columns with the number of values that have it."""
        found = []
        with closing(self._connected(path)) as connection:
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'"
            )
            for (table,) in tables.fetchall():
                for column in [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]:
                    where = f"typeof(\"{column}\") IN ('text', 'blob') AND has_trace(\"{column}\")"
                    count = connection.execute(f'SELECT count(*) FROM "{table}" WHERE {where}').fetchone()[0]
                    if count:
                        found.append((table, column, count))
        return found

    def _erase_in_database(self, path: Path) -> int:
        """Covers it in every value, and rewrites the file where free pages or the journal still have it. Looks again
        when it has: others may write while it looks, as of an alarm that this erasure ends."""
        count = 0
        with closing(self._connected(path)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            for _ in range(_ROUNDS):
                found = self._in_database(path)
                for table, column, _ in found:
                    connection.execute(
                        f'UPDATE OR REPLACE "{table}" SET "{column}" = without_trace("{column}") '
                        f"WHERE typeof(\"{column}\") IN ('text', 'blob') AND has_trace(\"{column}\")"
                    )
                count += sum(values for _, _, values in found)
                if not found:
                    break
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if any(next(self._places(file), None) for file in _database_files(path)):
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count


def _database_files(path: Path) -> list[Path]:
    return [file for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]


def _kind(path: Path) -> str:
    """`sqlite`, `parquet`, `text`, or nothing for other bytes and for what belongs to a database."""
    with path.open("rb") as file:
        head = file.read(8192)
    if head.startswith(_SQLITE):
        return "sqlite"
    if head.startswith(b"PAR1"):
        return "parquet"
    return "" if b"\x00" in head or path.name.endswith(("-wal", "-shm", "-journal")) else "text"


def _spellings(character: str) -> bytes:
    """A regular expression of the ways to write one character."""
    units = [character.encode("utf-16-be")[n : n + 2].hex() for n in range(0, len(character.encode("utf-16-be")), 2)]
    escaped = b"".join(rb"\\+u" + _any_case(unit) for unit in units)
    point = ord(character)
    entities = rb"&#0*%d;|&#[xX]0*%s;" % (point, _any_case(f"{point:x}"))
    percent = re.escape(quote(character, safe="").encode())
    named = re.escape(html.escape(character).encode())
    plain = re.escape(character.encode())
    quoted = rb"|\\+" + plain if character in '"\\/' else b""
    ways = dict.fromkeys([plain, escaped, *entities.split(b"|"), percent, named])
    return b"(?:" + b"|".join(ways) + quoted + b")"


def _any_case(digits: str) -> bytes:
    return "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in digits).encode()


def _bytes(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b""
