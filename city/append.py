"""Appends lines to files that only grow, and that a kill or a full disk may truncate anywhere."""

from errno import ENOSPC
from os import SEEK_END, strerror
from pathlib import Path


def append_whole(path: Path, lines: bytes) -> None:
    """Appends whole lines, all of them or none, after the last line of the file.

    The callers of a file hold a lock, so that only one writes at a time. Raises OSError where the file cannot be
    written.
    """
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, SEEK_END)
        # A kill may have truncated the last line. The new lines must not become a part of it.
        file.seek(max(0, size - 1))
        whole = b"\n" + lines if file.read(1) not in (b"", b"\n") else lines
        if file.write(whole) != len(whole):
            file.truncate(size)
            raise OSError(ENOSPC, strerror(ENOSPC))
