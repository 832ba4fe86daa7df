"""Who changed what: a line of JSON for each, in <home>/serving/audit.jsonl."""

import threading
import time
from typing import Any

import orjson

from city.settings import Settings

_TAIL_BYTES = 1_000_000


class Audit:
    """Appends; nothing is ever changed. A line is on disk before the change is answered."""

    def __init__(self, config: Settings) -> None:
        self._path = config.home / "serving" / "audit.jsonl"
        self._lock = threading.Lock()

    def write(self, by: str, what: str, **detail: Any) -> None:
        line = orjson.dumps({"at": time.time(), "by": by, "what": what, **detail}, default=str) + b"\n"
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(line)

    def newest(self, count: int) -> list[dict[str, Any]]:
        """The newest first."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - _TAIL_BYTES))
            lines = file.read().splitlines()[-count:]
        return [orjson.loads(line) for line in reversed(lines) if line.startswith(b"{") and line.endswith(b"}")]
