"""Files of lines that are only ever added to, and that a kill or a full disk may cut off anywhere."""

from errno import ENOSPC
from os import SEEK_END, strerror
from pathlib import Path


def append_whole(path: Path, lines: bytes) -> None:
    """Appends whole lines, all of them or none, on a line of their own. The callers of a file take turns.

    Raises OSError where the file cannot be written.
    """
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, SEEK_END)
        # A kill may have cut the last line off; it must not take these along.
        file.seek(max(0, size - 1))
        whole = b"\n" + lines if file.read(1) not in (b"", b"\n") else lines
        if file.write(whole) != len(whole):
            file.truncate(size)
            raise OSError(ENOSPC, strerror(ENOSPC))
