"""Reads MLflow's SQLite registry without MLflow.

To import MLflow takes two seconds and 150 MB, in each process that only wants to know which version is the champion:
the stream, the server, Dagster's code server. What it keeps is asked of its tables here; MLflow alone writes them.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

_BUSY_SECONDS = 10.0


@dataclass(frozen=True)
class Row:
    """A version as MLflow keeps it; `created_ms` since the epoch."""

    model: str
    number: int
    run: str
    tags: dict[str, str]
    created_ms: int


class MLflowTables:
    """The registry in a SQLite file, which need not be there yet. Raises sqlite3.Error where the tables are not those
    that are expected, or cannot be read."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def aliases(self) -> dict[str, dict[str, int]]:
        """Of every model, the version that each alias names."""
        found: dict[str, dict[str, int]] = {}
        for model, alias, number in self._rows("SELECT name, alias, version FROM registered_model_aliases"):
            found.setdefault(str(model), {})[str(alias)] = int(str(number))
        return found

    def versions(self, model: str) -> list[Row]:
        """All versions of a model, the newest first."""
        tags: dict[int, dict[str, str]] = {}
        for number, key, value in self._rows(
            "SELECT version, key, value FROM model_version_tags WHERE name = ?", model
        ):
            tags.setdefault(int(str(number)), {})[str(key)] = str(value)
        found = self._rows(
            "SELECT version, run_id, creation_time FROM model_versions WHERE name = ? "
            "AND current_stage != 'Deleted_Internal' ORDER BY version DESC",
            model,
        )
        numbered = [(int(str(number)), str(run), int(str(created))) for number, run, created in found]
        return [Row(model, number, run, tags.get(number, {}), created) for number, run, created in numbered]

    def model_file(self, model: str, number: int, name: str) -> Path | None:
        """A file of a version's logged model; None where it is not on this machine's disk."""
        sql = "SELECT storage_location FROM model_versions WHERE name = ? AND version = ?"
        return _local(self._rows(sql, model, number), name)

    def run_file(self, run: str, name: str) -> Path | None:
        """A file among a run's artifacts; None where it is not on this machine's disk."""
        return _local(self._rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run), name)

    def _rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        if not self._file.exists():
            return []
        with self._connected() as connection:
            return connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(f"{self._file.as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
        try:
            yield connection
        finally:
            connection.close()


def _local(found: list[tuple[object, ...]], name: str) -> Path | None:
    uri = urlparse(str(found[0][0])) if found and found[0][0] else None
    if uri is None or uri.scheme not in ("", "file"):
        return None
    path = Path(unquote(uri.path)) / name
    return path if path.is_file() else None
