"""The audit log: who changed what, as one line of JSON for each change, in <home>/serving/audit.jsonl."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import cast

import orjson
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from city.append import append_whole
from city.settings import Settings
from city.web.problems import Problem

log = logging.getLogger(__name__)

_TAIL_BYTES = 1_000_000


@with_config(ConfigDict(extra="allow", use_attribute_docstrings=True))
class AuditEntry(TypedDict):
    """An entry of the audit log. Its other fields depend on the change."""

    at: float
    """The time of the change, in seconds since the epoch."""
    by: str
    what: str


def entry(by: str, what: str, **detail: object) -> AuditEntry:
    """An entry of the audit log about a change that is made now."""
    return cast(AuditEntry, {"at": time.time(), "by": by, "what": what, **detail})


class Audit:
    """Appends to the audit log, and never changes a line. A line is written before its change is made, so no change is
    made without a line."""

    def __init__(self, config: Settings) -> None:
        self._path = config.home / "serving" / "audit.jsonl"
        self._lock, self._is_away = threading.Lock(), False

    def write(self, by: str, what: str, **detail: object) -> None:
        """Appends an entry. Raises Problem (503) where it cannot be written: then the change must not be made."""
        self.append([entry(by, what, **detail)])

    def append(self, entries: Sequence[AuditEntry]) -> None:
        """Appends all entries or none. Raises Problem (503) where they cannot be written."""
        lines = b"".join(orjson.dumps(line, default=str) + b"\n" for line in entries)
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                append_whole(self._path, lines)
                self._is_away = False
            except OSError as error:
                if not self._is_away:  # logged once: callers try again every second
                    log.error("the audit cannot be written: %s", error)
                self._is_away = True
                raise Problem(
                    503,
                    f"nothing was changed, because the audit cannot be written ({error.strerror or error}): make room "
                    f"on the disk of {self._path.name}, or let the server write there, and ask again",
                    headers={"retry-after": "5"},
                ) from None

    def newest(self, count: int) -> list[AuditEntry]:
        """The newest entries, at most `count`, the newest first."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - _TAIL_BYTES))
            lines = file.read().splitlines()[-count:]
        return [parsed for line in reversed(lines) if (parsed := _parse_entry(line)) is not None]


def _parse_entry(line: bytes) -> AuditEntry | None:
    """The entry of a line; None for a line that was cut off, or that another program has written."""
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    is_entry = isinstance(content, dict) and AuditEntry.__required_keys__ <= content.keys()
    return cast(AuditEntry, content) if is_entry else None
