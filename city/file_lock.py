"""Locks a table, or a file, on this machine, for work that a table's log alone does not guard."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Holds the lock of the table (or file) at `path`, whose folder must exist. The lock ends with its process.

    While another process holds the lock, `on_wait` is called repeatedly with the id of that process. It may raise.
    Without `on_wait` the call blocks.
    """
    with path.with_name(f".{path.name}.lock").open("a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX if on_wait is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert on_wait is not None
                lock.seek(0)
                on_wait(lock.read())
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
