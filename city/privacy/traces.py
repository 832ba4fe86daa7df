"""Finds and overwrites an identity in files that are not tables: pages, logs, documents, SQLite databases, rejected
messages.

All spellings in text are found: UTF-8, the escapes of JSON and HTML, and percent-encoding. A match has no letter, digit
or `-` beside it and no `_` before it; a `_` may follow, because `pump_1_s2` is a sensor of `pump_1`. A match is
overwritten with the same number of `x`, so that a file keeps its layout for processes that have it open.
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
# JSON's escapes of white space end in a letter that does not belong to the word.
_BEFORE = rb"(?:(?<!" + _WORD + rb")|(?<=\\[nrtbf]))"
_AFTER = rb"(?![0-9A-Za-z\-\x80-\xff])"
# What stands between a name and its value: in a text or a query, and in JSON, where an identity is quoted.
_BETWEEN = rb"(?:[ =]{1,3}(?:\\*[\"'])?|\\*[\"']?\s*:\s*\\*[\"'])"
_AMBIGUOUS = re.compile(r"[\d.,:+eE-]+|[^\W\d_]+")
"""An identity that may also be a number, a time or a word of JSON."""
_SQLITE = b"SQLite format 3\x00"
_BUSY_SECONDS = 10.0
_ROUNDS = 3  # a limit, because an identity that consists of x is still there after it was overwritten
_CHUNK = 16 << 20
_OVERLAP = 64 << 10  # longer than any spelling of an identity of MAX_STRING characters


@dataclass(frozen=True)
class Traces:
    """Finds and overwrites one identity. `column` is the column of tables that contains identities of its kind.

    An identity of letters alone, or one that looks like a number, such as `null` or `1`, may also be a value of
    something else. In files with the state of processes (`is_state`) it is an identity only after its column's or its
    kind's name (`"vehicle_id": "1"`), and in a cell of a printed table. Otherwise an erasure would break this state.
    """

    column: str
    identity: str

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """Matches every spelling of the identity. An identity of digits only must stand between quotes, bars or tags,
        or every equal number would match."""
        spelled = b"".join(map(_spellings, self.identity))
        if self.identity.isdecimal():
            return re.compile(rb"(?<=[\"'|>]) ?" + _named(spelled) + rb"(?= ?(?:\\*[\"']|[|<]))")
        return re.compile(_BEFORE + _named(spelled) + _AFTER)

    @cached_property
    def state_pattern(self) -> re.Pattern[bytes]:
        """Matches every spelling of the identity in files with the state of processes."""
        if not _AMBIGUOUS.fullmatch(self.identity):
            return self.pattern
        spelled = _named(b"".join(map(_spellings, self.identity)))
        names = b"|".join(re.escape(name.encode()) for name in (self.column, self.column.removesuffix("_id")))
        cell = rb"(?<=[|>]) ?" + spelled.replace(b"?P<identity>", b"?P<cell>") + rb"(?= ?[|<])"
        return re.compile(rb"(?:" + _BEFORE + rb"(?:" + names + rb")" + _BETWEEN + spelled + _AFTER + rb")|" + cell)

    def are_in(self, raw: bytes) -> bool:
        """Tells whether a message contains the identity, in UTF-8, in UTF-16 (for a message with zero bytes) or in
        Latin-1 (for a message that is not valid UTF-8)."""
        if self.pattern.search(raw):
            return True
        encodings = ["utf-16-le", "utf-16-be"] if b"\x00" in raw else []
        try:
            raw.decode()
        except UnicodeDecodeError:
            encodings.append("latin-1")
        return any(self.pattern.search(raw.decode(encoding, "replace").encode()) for encoding in encodings)

    def cover(self, text: bytes, is_state: bool = False) -> bytes:
        """Returns the text with each occurrence of the identity overwritten with `x`.

        With `is_state`, the text is what processes keep as their state.
        """

        def covered(match: re.Match[bytes]) -> bytes:
            begin, end = (place - match.start() for place in _span(match))
            return match[0][:begin] + b"x" * (end - begin) + match[0][end:]

        return self._pattern_of(is_state).sub(covered, text)

    def _pattern_of(self, is_state: bool) -> re.Pattern[bytes]:
        return self.state_pattern if is_state else self.pattern

    def count_in_file(self, path: Path, is_state: bool = False) -> int:
        """Counts the identity in a file: rows of Parquet, values of a database, occurrences in text. Other binary files
        are not searched, because a short identity occurs in them by chance."""
        kind = _file_kind(path)
        if kind == "parquet":
            return self._matching_rows(path).height
        if kind == "sqlite":
            return sum(count for _, _, count in self._count_in_database(path, is_state))
        return sum(1 for _ in self._find_places(path, is_state)) if kind == "text" else 0

    def erase(self, path: Path, is_state: bool = False) -> int:
        """Erases the identity from a file and returns how often it was there. Raises sqlite3.OperationalError for a
        database that is always in use."""
        kind = _file_kind(path)
        if kind == "parquet":
            return self._erase_rows(path)
        if kind == "sqlite":
            return self._erase_in_database(path, is_state)
        return self._cover_in_text(path, is_state) if kind == "text" else 0

    def _matching_rows(self, path: Path) -> pl.DataFrame:
        frame = pl.read_parquet(path)
        return frame.filter(pl.col(self.column) == self.identity) if self.column in frame.columns else frame.clear()

    def _erase_rows(self, path: Path) -> int:
        rows = self._matching_rows(path).height
        if rows:
            stat, new_path = path.stat(), path.with_suffix(".new")
            pl.read_parquet(path).filter(pl.col(self.column) != self.identity).write_parquet(new_path)
            new_path.replace(path)
            # The file's time says when the reference was pinned.
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return rows

    def _find_places(self, path: Path, is_state: bool) -> Iterator[tuple[int, int]]:
        """Yields begin and length of each occurrence in a file, in bytes. Reads the file chunk by chunk. The chunks
        overlap, so that an occurrence across a boundary is found."""
        pattern = self._pattern_of(is_state)
        with path.open("rb") as file:
            offset, tail, last = 0, b"", 0
            while chunk := file.read(_CHUNK):
                text = tail + chunk
                for match in pattern.finditer(text):
                    first, end = _span(match)
                    begin, is_cut = offset + first, match.end() == len(text) or (offset and not match.start())
                    if begin >= last and not is_cut:
                        last = offset + end
                        yield begin, end - first
                keep = min(len(text), _OVERLAP)
                offset, tail = offset + len(text) - keep, text[-keep:]
            for match in pattern.finditer(tail):
                first, end = _span(match)
                if offset + first >= last:
                    yield offset + first, end - first

    def _cover_in_text(self, path: Path, is_state: bool) -> int:
        places = list(self._find_places(path, is_state))
        if places:
            with path.open("r+b") as file:
                for begin, length in places:
                    file.seek(begin)
                    file.write(b"x" * length)
        return len(places)

    def _connect(self, path: Path, is_state: bool) -> sqlite3.Connection:
        """Opens a database and defines the SQL functions `has_trace` and `without_trace`."""

        def has_trace(value: object) -> bool:
            return self._pattern_of(is_state).search(_to_bytes(value)) is not None

        def remove_trace(value: object) -> str | bytes:
            covered = self.cover(_to_bytes(value), is_state)
            return covered.decode() if isinstance(value, str) else covered

        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        connection.create_function("has_trace", 1, has_trace)
        connection.create_function("without_trace", 1, remove_trace)
        return connection

    def _count_in_database(self, path: Path, is_state: bool) -> list[tuple[str, str, int]]:
        """Returns the tables and columns that contain the identity, with the number of values that do."""
        counts = []
        with closing(self._connect(path, is_state)) as connection:
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'"
            )
            for (table,) in tables.fetchall():
                for column in [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]:
                    where = f"typeof(\"{column}\") IN ('text', 'blob') AND has_trace(\"{column}\")"
                    count = connection.execute(f'SELECT count(*) FROM "{table}" WHERE {where}').fetchone()[0]
                    if count:
                        counts.append((table, column, count))
        return counts

    def _erase_in_database(self, path: Path, is_state: bool) -> int:
        """Overwrites the identity in every value, and rewrites the file if free pages or the journal still contain it.
        After each round it searches again, because other processes may write meanwhile; an erasure may end an alarm,
        for example."""
        count = 0
        with closing(self._connect(path, is_state)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            for _ in range(_ROUNDS):
                columns = self._count_in_database(path, is_state)
                for table, column, _ in columns:
                    connection.execute(
                        f'UPDATE OR REPLACE "{table}" SET "{column}" = without_trace("{column}") '
                        f"WHERE typeof(\"{column}\") IN ('text', 'blob') AND has_trace(\"{column}\")"
                    )
                count += sum(values for _, _, values in columns)
                if not columns:
                    break
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if any(next(self._find_places(file, is_state), None) for file in _database_files(path)):
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count


def _database_files(path: Path) -> list[Path]:
    return [file for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]


def _file_kind(path: Path) -> str:
    """Returns `sqlite`, `parquet`, `text`, or an empty text for other binary files and for a database's side files."""
    with path.open("rb") as file:
        head = file.read(8192)
    if head.startswith(_SQLITE):
        return "sqlite"
    if head.startswith(b"PAR1"):
        return "parquet"
    return "" if b"\x00" in head or path.name.endswith(("-wal", "-shm", "-journal")) else "text"


def _spellings(character: str) -> bytes:
    """Returns a regular expression that matches every spelling of one character."""
    units = [character.encode("utf-16-be")[n : n + 2].hex() for n in range(0, len(character.encode("utf-16-be")), 2)]
    escaped = b"".join(rb"\\+u" + _match_any_case(unit) for unit in units)
    point = ord(character)
    entities = rb"&#0*%d;|&#[xX]0*%s;" % (point, _match_any_case(f"{point:x}"))
    percent = re.escape(quote(character, safe="").encode()) + (rb"|\+" if character == " " else b"")
    named = re.escape(html.escape(character).encode())
    plain = re.escape(character.encode())
    quoted = rb"|\\+" + plain if character in '"\\/' else b""
    lower = percent.lower() if percent.startswith(b"%") else percent
    spellings = dict.fromkeys([plain, escaped, *entities.split(b"|"), percent, lower, named])
    return b"(?:" + b"|".join(spellings) + quoted + b")"


def _named(spelled: bytes) -> bytes:
    return b"(?P<identity>" + spelled + b")"


def _span(match: re.Match[bytes]) -> tuple[int, int]:
    """Returns where the identity is in a match, which may begin with the name of its column."""
    span = match.span("identity")
    return span if span[0] >= 0 else match.span("cell")


def _match_any_case(digits: str) -> bytes:
    return "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in digits).encode()


def _to_bytes(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b""


def quote_literal(text: str) -> str:
    """Returns the text as a literal of SQL."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
