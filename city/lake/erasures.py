"""Tells the processes that run of an erasure: none may write from its memory what is erased on disk.

`city.lake.forget` announces an erasure here before it erases anything. Who keeps ids in memory and writes them down
holds `writing` while it reads what was announced, drops that, and writes. So what it wrote before an announcement is
there to be erased, and what it writes after one is without it.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from city.lake.lock import alone

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
    """Raises OSError where the log in `home` cannot be written."""
    with writing(home), (home / LOG).open("a") as file:
        file.write(json.dumps(asdict(erased)) + "\n")


@contextmanager
def writing(home: Path) -> Iterator[None]:
    """While it is held no erasure begins."""
    home.mkdir(parents=True, exist_ok=True)
    with alone(home / LOG):
        yield


class Erasures:
    """What was announced in `home` from a position on, which is kept with what is written without it."""

    def __init__(self, home: Path, position: int = 0) -> None:
        self._path = home / LOG
        self.position = position

    def are_new(self) -> bool:
        """Whether there are any to be read."""
        return self._path.exists() and self._path.stat().st_size > self.position

    def read(self) -> list[Erased]:
        """Those that are new. Hold `writing`."""
        if not self.are_new():
            return []
        with self._path.open("rb") as file:
            file.seek(self.position)
            lines = file.readlines()
        self.position += sum(map(len, lines))
        return [Erased(**json.loads(line)) for line in lines]
