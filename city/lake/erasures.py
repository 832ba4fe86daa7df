"""Tells the processes that run of an erasure: none may write from its memory what is erased on disk.

`city.privacy.erase` announces an erasure here before it erases anything. Who keeps ids in memory and writes them down
holds `writing` while it reads what was announced, drops that, and writes. So what it wrote before an announcement is
there to be erased, and what it writes after one is without it.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from city.append import append_whole
from city.file_lock import file_lock

LOG = "erasures.jsonl"


@dataclass(frozen=True)
class Erased:
    """An identity that was erased, known by its digest alone."""

    kind: str
    digest: str

    def is_of(self, identity: str) -> bool:
        return digest(self.kind, identity) == self.digest


def digest(kind: str, identity: str) -> str:
    """By which somebody who knows an identity finds the record of its erasure."""
    return hashlib.sha256(f"{kind}/{identity}".encode()).hexdigest()


def announce(home: Path, erased: Erased) -> None:
    """Appends the whole line or nothing. Raises OSError where the log in `home` cannot be written."""
    lines, path = json.dumps(asdict(erased)).encode() + b"\n", home / LOG
    with writing(home):
        if not (path.exists() and path.stat().st_size):
            # Two logs may begin with the same erasure, and are told apart by their first lines.
            lines = json.dumps({"log": uuid.uuid4().hex}).encode() + b"\n" + lines
        append_whole(path, lines)


@contextmanager
def writing(home: Path) -> Iterator[None]:
    """While it is held no erasure begins."""
    home.mkdir(parents=True, exist_ok=True)
    with file_lock(home / LOG):
        yield


class Erasures:
    """What was announced in `home` and has not been read.

    `positions` is how far each log was read: log id → bytes, as JSON. It is kept with what is written without the
    erased, in a store that several homes may share, so it has the positions of their logs too.
    """

    def __init__(self, home: Path, positions: Any = None) -> None:
        """Goes on from the `positions` that another reader kept. A single number is of an earlier version and may be of
        any home's log: all is read again then, which drops nobody who should stay for longer than until they are heard
        of again."""
        self._path = home / LOG
        self._positions: dict[str, int] = dict(positions) if isinstance(positions, Mapping) else {}
        self._size_read: int | None = None

    @property
    def positions(self) -> dict[str, int]:
        return dict(self._positions)

    def are_new(self) -> bool:
        """Whether the log has changed since it was read."""
        size = self._path.stat().st_size if self._path.exists() else 0
        return size != (self._size_read or 0)

    def read(self) -> list[Erased]:
        """Those that are new, of whole lines; what is no erasure is passed over. Hold `writing`."""
        if not self.are_new():
            return []
        content = self._path.read_bytes() if self._path.exists() else b""
        self._size_read = len(content)
        end = content.rfind(b"\n") + 1
        if not end:
            return []
        log = hashlib.sha256(content[: content.index(b"\n")]).hexdigest()[:32]
        position = self._positions.get(log, 0)
        begin = position if position <= end else 0  # it is shorter where it was restored from a backup
        self._positions[log] = end
        return [erased for line in content[begin:end].splitlines() if (erased := _erased(line)) is not None]


def _erased(line: bytes) -> Erased | None:
    """None for a line that was cut off, and for the one that names the log."""
    try:
        return Erased(**json.loads(line))
    except (ValueError, TypeError):
        return None
