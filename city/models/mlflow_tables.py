"""Reads MLflow's SQLite registry without MLflow.

Importing MLflow takes two seconds and 150 MB, in each process that only needs the champion's version: the stream, the
server, Dagster's code server. So this module queries MLflow's tables directly. Only MLflow writes them.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

from city.models.version import Version

_BUSY_SECONDS = 10.0
_CREATION_SECONDS = 60.0  # since the last change of the file


class MLflowTables:
    """The registry in a SQLite file, which may not exist yet.

    Raises sqlite3.Error where the tables are not as expected, or cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def aliases(self) -> dict[str, dict[str, int]]:
        """Returns the version of each alias, for every model."""
        by_model: dict[str, dict[str, int]] = {}
        for model, alias, number in self._select_rows("SELECT name, alias, version FROM registered_model_aliases"):
            by_model.setdefault(str(model), {})[str(alias)] = int(str(number))
        return by_model

    def versions(self, model: str, number: int | None = None) -> list[Version]:
        """Lists the versions of a model, the newest first: all, or the one of that number."""
        which, values = ("name = ?", [model]) if number is None else ("name = ? AND version = ?", [model, number])
        tags: dict[int, dict[str, str]] = {}
        for version, key, value in self._select_rows(
            f"SELECT version, key, value FROM model_version_tags WHERE {which}", *values
        ):
            tags.setdefault(int(str(version)), {})[str(key)] = str(value)
        version_rows = self._select_rows(
            f"SELECT version, run_id, creation_time FROM model_versions WHERE {which} "
            "AND current_stage != 'Deleted_Internal' ORDER BY version DESC",
            *values,
        )
        aliases: dict[int, list[str]] = {}
        for alias, version in self.aliases().get(model, {}).items():
            aliases.setdefault(version, []).append(alias)
        typed = [(int(str(version)), str(run), int(str(created))) for version, run, created in version_rows]
        return [
            Version(model, version, run, tuple(sorted(aliases.get(version, []))), tags.get(version, {}), created)
            for version, run, created in typed
        ]

    def model_file(self, model: str, number: int, name: str) -> Path | None:
        """Returns the path of a file of a version's model. Returns None where it is not on this machine's disk."""
        sql = "SELECT storage_location FROM model_versions WHERE name = ? AND version = ?"
        return _local_path(self._select_rows(sql, model, number), name)

    def run_file(self, run: str, name: str) -> Path | None:
        """Returns the path of an artifact of a run. Returns None where it is not on this machine's disk."""
        return _local_path(self._select_rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run), name)

    def _select_rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Runs a query. Returns no rows where the file, or the tables in it, do not exist yet."""
        if not self._file.exists():
            return []
        try:
            with self._open_connection() as connection:
                return connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such" in str(error) and self._is_being_created():
                return []
            raise

    def _is_being_created(self) -> bool:
        """Returns whether MLflow may still be creating the tables, which takes it seconds.

        Callers poll. A caller that read by MLflow instead would keep its 150 MB from the first training on.
        """
        return time.time() - self._file.stat().st_mtime < _CREATION_SECONDS

    @contextlib.contextmanager
    def _open_connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(f"{self._file.as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
        try:
            yield connection
        finally:
            connection.close()


def _local_path(uris: list[tuple[object, ...]], name: str) -> Path | None:
    """Returns the path of a file in the folder of the first URI, if that folder is local and has the file."""
    uri = urlparse(str(uris[0][0])) if uris and uris[0][0] else None
    if uri is None or uri.scheme not in ("", "file"):
        return None
    path = Path(unquote(uri.path)) / name
    return path if path.is_file() else None
