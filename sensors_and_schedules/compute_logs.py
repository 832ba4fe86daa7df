"""What a step prints goes to its file, and so to the UI, without processes that copy it to the server's own output.

Dagster's own manager starts four of those per run (two `tail`, and two that end them when the run is gone). They live
as long as the run, and the stream's run is never over.
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
    """LocalComputeLogManager without the copying; its folder is <CITY_HOME>/dagster/storage unless it is given."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {
            "base_dir": Field(StringSource, is_required=False),
            "polling_timeout": Field(Float, is_required=False),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "FileComputeLogManager":
        from city.settings import settings  # here, for every process of Dagster imports this module

        base_dir = {"base_dir": str(settings().home / "dagster" / "storage")}
        return cls(inst_data=inst_data, **(base_dir | dict(config_value)))

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        paths = [
            self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind])
            for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR)
        ]
        for path in paths:
            ensure_file(path)
        with redirect_to_file(sys.stdout, paths[0]), redirect_to_file(sys.stderr, paths[1]):
            yield CapturedLogContext(log_key)
        touch_file(self.complete_artifact_path(log_key))
