"""Announces erasures to the running processes: none may write from its memory an id that was erased on disk.

`city.privacy.erase` announces an erasure here before it erases anything. A process that keeps ids in memory and writes
them to disk holds `writing` while it reads the announcements, drops the erased ids, and writes. So an id that it wrote
before an announcement is on disk and is erased, and after an announcement it no longer writes that id.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from city.append import append_whole
from city.file_lock import file_lock

LOG = "erasures.jsonl"


@dataclass(frozen=True)
class Erasure:
    """An identity that was erased, stored only as its digest."""

    kind: str
    digest: str

    def is_of(self, identity: str) -> bool:
        """Returns whether this is the erasure of `identity`."""
        return digest(self.kind, identity) == self.digest


def digest(kind: str, identity: str) -> str:
    """Returns the digest of an identity. A person who knows the identity finds the record of its erasure by it."""
    return hashlib.sha256(f"{kind}/{identity}".encode()).hexdigest()


def announce(home: Path, erased: Erasure) -> None:
    """Appends the erasure to the log in `home` as a whole line, or not at all. Raises OSError where that fails."""
    lines, path = json.dumps(asdict(erased)).encode() + b"\n", home / LOG
    with writing(home):
        if not (path.exists() and path.stat().st_size):
            # Two logs may start with the same erasure, so a first line with a random id distinguishes them.
            lines = json.dumps({"log": uuid.uuid4().hex}).encode() + b"\n" + lines
        append_whole(path, lines)


@contextmanager
def writing(home: Path) -> Iterator[None]:
    """Holds the log's lock, so that no erasure starts meanwhile."""
    home.mkdir(parents=True, exist_ok=True)
    with file_lock(home / LOG):
        yield


class Erasures:
    """Reads the announcements in `home` that have not been read yet.

    `positions` is the position of each log as JSON: log id → bytes. A reader stores it together with the data that it
    writes without the erased ids. Several homes may share that store, so it has the positions of their logs too.
    """

    def __init__(self, home: Path, positions: object = None) -> None:
        """Continues from the `positions` that another reader stored.

        A single number comes from an earlier version and may belong to the log of any home. In this case the whole log
        is read again. This may drop an id that should stay, but only until its next event.
        """
        self._path = home / LOG
        self._positions: dict[str, int] = dict(positions) if isinstance(positions, Mapping) else {}
        self._size_read: int | None = None

    @property
    def positions(self) -> dict[str, int]:
        """The position of each log: log id → bytes."""
        return dict(self._positions)

    def are_new(self) -> bool:
        """Returns whether the log has changed since the last read."""
        size = self._path.stat().st_size if self._path.exists() else 0
        return size != (self._size_read or 0)

    def read(self) -> list[Erasure]:
        """Returns the new erasures from the whole lines of the log. Skips other lines. The caller holds `writing`."""
        if not self.are_new():
            return []
        content = self._path.read_bytes() if self._path.exists() else b""
        self._size_read = len(content)
        end = content.rfind(b"\n") + 1
        if not end:
            return []
        log = hashlib.sha256(content[: content.index(b"\n")]).hexdigest()[:32]
        position = self._positions.get(log, 0)
        begin = position if position <= end else 0  # the log is shorter after a restore from a backup
        self._positions[log] = end
        return [erased for line in content[begin:end].splitlines() if (erased := _parse_line(line)) is not None]


def _parse_line(line: bytes) -> Erasure | None:
    """Parses an erasure. Returns None for an incomplete line, and for the line with the log's id."""
    try:
        return Erasure(**json.loads(line))
    except (ValueError, TypeError):
        return None
