"""Leases: of several servers that share an alert store, only one does the work that a lease is for.

On SQLite the store is a file on one machine, and the lease is a lock on a file beside it. On PostgreSQL the lease is an
advisory lock of a session. Both end with the process or connection that has them, so a server that is killed leaves no
lock behind.
"""

import fcntl
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO

import sqlalchemy as sa


class Lease:
    """A named lease beside the store at an SQLAlchemy URL. Not safe to use from several threads."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = sa.make_url(url), name
        self._file: IO[str] | None = None
        self._engine: sa.Engine | None = None
        self._session: sa.Connection | None = None
        self._key = zlib.crc32(f"city/{name}".encode())

    def acquire(self) -> bool:
        """Tries to get the lease. Returns whether this process has it now.

        Raises OSError or SQLAlchemyError where the store is unavailable.
        """
        if self._url.get_backend_name() == "sqlite":
            return self._lock_file()
        if self._session is None:
            self._engine = sa.create_engine(self._url, poolclass=sa.NullPool)
            self._session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        acquired = self._session.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}).scalar_one()
        return bool(acquired)

    def check(self) -> None:
        """Raises SQLAlchemyError where the session that has the lease is gone, and the lease with it."""
        if self._session is not None:
            self._session.execute(sa.text("SELECT 1"))

    def release(self) -> None:
        """Gives the lease back."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._session is not None and self._engine is not None:
            with suppress(sa.exc.SQLAlchemyError):  # a session that is gone has no lock
                self._session.close()
            self._engine.dispose()
            self._session = None

    def _lock_file(self) -> bool:
        if self._file is None:
            store = Path(self._url.database or "alerts.db")
            self._file = store.with_name(f".{store.name}.{self._name}.lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
