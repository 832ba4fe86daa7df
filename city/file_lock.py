"""One process at a time, on this machine: for files, and for what a table's log does not guard."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path, meanwhile: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the lock of the table (or file) at `path`, whose folder must exist; it ends with its process.

    While another holds it, `meanwhile` is called again and again with that one's process id, and may raise.
    """
    with path.with_name(f".{path.name}.lock").open("a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX if meanwhile is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert meanwhile is not None
                lock.seek(0)
                meanwhile(lock.read())
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
