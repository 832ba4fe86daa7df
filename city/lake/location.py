"""Opens Delta tables in a folder or on S3, and explains the errors of S3."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from city.s3 import S3Server, is_s3_error
from city.settings import Settings


class ColdStorageError(OSError):
    """S3 refused a request or did not answer. The message names the setting that mends it, and no secret."""


@dataclass(frozen=True)
class Location:
    """The place of a Delta table, or of several: a folder, or the URL of a path on S3 with its `server`."""

    uri: str
    server: S3Server | None = None

    @classmethod
    def of(cls, place: "Path | str | Location") -> "Location":
        """Returns a folder as a location, and a location as it is."""
        return place if isinstance(place, Location) else cls(str(place))

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "Location":
        return replace(self, uri=f"{self.uri}/{name}")

    @property
    def options(self) -> dict[str, str] | None:
        """The storage options of deltalake and Polars. They have the secrets."""
        return self.server.options() if self.server else None

    def exists(self) -> bool:
        """Returns whether a table is there. Raises ColdStorageError as `explained` does."""
        with self.explained():
            return DeltaTable.is_deltatable(self.uri, self.options)

    def open(self, version: int | None = None) -> DeltaTable:
        """Opens the table. Raises ColdStorageError as `explained` does."""
        with self.explained():
            return DeltaTable(self.uri, version=version, storage_options=self.options)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raises ColdStorageError in place of the errors of S3, which are long and may contain the access key.

        A conflict of two commits stays a DeltaError.
        """
        try:
            yield
        except (OSError, DeltaError, pl.exceptions.PolarsError) as error:
            if self.server is None or isinstance(error, ColdStorageError) or not is_s3_error(error):
                raise
            raise ColdStorageError(self.server.explain(error, self.uri)) from None

    def refusal(self) -> str | None:
        """Returns why S3 refuses this location, with the setting that mends it; None where it does not, or is away."""
        if self.server is None:
            return None
        try:
            DeltaTable.is_deltatable(self.uri, self.options)
        except (OSError, DeltaError) as error:
            return self.server.explain(error, self.uri) if self.server.refuses(error) else None
        return None


def cold_location(config: Settings) -> Location:
    """Returns the place of cold storage."""
    return Location(config.cold_path, config.cold_server)
