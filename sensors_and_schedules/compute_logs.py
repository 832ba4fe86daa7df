"""A compute log manager that writes a step's output only to its file, from which the UI shows it.

Dagster's own manager also copies the output to that of the server. For this it starts four processes per run: two
`tail`, and two that end them after the run. They live as long as the run, and the stream's run does not end.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dagster import Field, Float, StringSource

from city.dagster_internals import (
    IO_TYPE_EXTENSION,
    CapturedLogContext,
    ComputeIOType,
    ConfigurableClassData,
    LocalComputeLogManager,
    UserConfigSchema,
    ensure_file,
    redirect_to_file,
    touch_file,
)


class FileComputeLogManager(LocalComputeLogManager):
    """A LocalComputeLogManager without copies. Its default folder is <CITY_HOME>/dagster/storage."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Returns the configuration schema, in which all fields are optional."""
        return {
            "base_dir": Field(StringSource, is_required=False),
            "polling_timeout": Field(Float, is_required=False),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "FileComputeLogManager":
        """Builds the manager from its configuration in dagster.yaml."""
        from city.settings import settings  # imported here, because every process of Dagster imports this module

        base_dir = {"base_dir": str(settings().home / "dagster" / "storage")}
        return cls(inst_data=inst_data, **(base_dir | dict(config_value)))

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """Redirects standard output and standard error to the files of `log_key`."""
        paths = [
            self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind])
            for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR)
        ]
        for path in paths:
            ensure_file(path)
        with redirect_to_file(sys.stdout, paths[0]), redirect_to_file(sys.stderr, paths[1]):
            yield CapturedLogContext(log_key)
        touch_file(self.complete_artifact_path(log_key))
