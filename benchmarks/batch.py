"""Taxi trips cleaned and made into the gold tables by Polars and by Spark: the same transforms, the same Delta tables.

The trips are real ones in great number (see _trips). Both engines start warm, from the same bronze table, and write
silver and gold; what they wrote is compared row by row. Memory is that of the whole process tree, at its highest.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import psutil
from polars.testing import assert_frame_equal

from benchmarks._trips import real_trips, write_month
from city.java import jars
from city.lake.engines.spark import is_installed
from city.settings import Settings, settings
from city.stack.embedded import environment, settings_at
from city.tables.registry import table_of
from city_assets.traffic.ingest import ingest

MONTH_ROWS = 10_000_000
MONTHS = 4
WARM_ROWS = 200_000
TABLES = ("silver/trips", "gold/trip_cells_hourly", "gold/trip_flows_daily", "gold/trip_hotspots_daily")
_ROUNDING = 2e-6  # values are rounded to six digits, and a last digit may fall to either side


def run(tell: Callable[[str], None], rows: int = MONTH_ROWS, months: int = MONTHS) -> dict[str, Any]:
    """One month on both engines, then `months` of them on ours alone. Raises AssertionError where they disagree.
    Spark's keys are null where it is not installed (`make spark`)."""
    real = real_trips()
    with tempfile.TemporaryDirectory() as folder:
        base = settings_at(Path(folder), settings().cache_folder)
        warm, one = (base.model_copy(update={"home": Path(folder) / name}) for name in ("warm", "one"))
        _fill(warm, 1, WARM_ROWS, real, tell)
        _fill(one, 1, rows, real, tell)
        ours = _measure("polars", warm, one, tell)
        spark: dict[str, float] = {}
        if is_installed():
            jars.fetch(base, jars.missing(base, ["spark"]))
            copy, warm_copy = (_bronze_of(config, f"spark-{config.home.name}") for config in (one, warm))
            spark = _measure("spark", warm_copy, copy, tell)
            _compare(one.lake, copy.lake)
            tell("both wrote the same rows")
            shutil.rmtree(copy.home)
        _fill(one, months, rows, real, tell, first=2)
        many = _measure("polars", warm, one, tell)
    return {
        "bench": "batch",
        "rows": int(ours["rows"]),
        "seconds": round(ours["seconds"], 2),
        "spark_seconds": round(spark["seconds"], 2) if spark else None,
        "ratio": round(spark["seconds"] / ours["seconds"], 2) if spark else None,
        "peak_mb": round(ours["peak_mb"]),
        "spark_peak_mb": round(spark["peak_mb"]) if spark else None,
        "rows_of_all_months": int(many["rows"]),
        "seconds_of_all_months": round(many["seconds"], 2),
        "peak_mb_of_all_months": round(many["peak_mb"]),
    }


def _fill(
    config: Settings, months: int, rows: int, real: pl.DataFrame, tell: Callable[[str], None], first: int = 1
) -> None:
    for month in range(first, months + 1):
        file = config.home / f"2015-{month:02d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        ingest(write_month(file, datetime(2015, month, 1), rows, real, month), config.lake, config.timezone, _silent)
        file.unlink()
        tell(f"{rows:,} trips of 2015-{month:02d} in bronze")


def _bronze_of(config: Settings, name: str) -> Settings:
    copy = config.model_copy(update={"home": config.home.with_name(name)})
    shutil.copytree(config.lake / "bronze", copy.lake / "bronze")
    return copy


def _measure(engine: str, warm: Settings, config: Settings, tell: Callable[[str], None]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks._batch_worker", str(warm.home), *TABLES]
    process = subprocess.Popen(
        command,
        env=os.environ | environment(config) | {"CITY_ENGINE": engine},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = _Peak(process.pid)
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the tables could not be built with {engine}: {err[-2000:]}")
    figures: dict[str, float] = json.loads(out.splitlines()[-1]) | {"peak_mb": peak.stop()}
    tell(f"{engine}: {figures['rows']:,.0f} trips in {figures['seconds']:.1f} s, peak {figures['peak_mb']:,.0f} MB")
    return figures


def _compare(ours: Path, theirs: Path) -> None:
    for name in TABLES:
        key = list(table_of(name).key)
        left, right = (pl.read_delta(str(lake / name)).sort(key) for lake in (ours, theirs))
        assert_frame_equal(left, right, check_exact=False, abs_tol=_ROUNDING, rel_tol=1e-9)


def _silent(rows: int) -> None: ...


class _Peak:
    """The most memory, in MB, that a process and its children held at once."""

    def __init__(self, pid: int) -> None:
        self._process, self._stop, self._peak = psutil.Process(pid), threading.Event(), 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        self._stop.set()
        self._thread.join()
        return self._peak / (1 << 20)

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            try:
                tree = [self._process, *self._process.children(recursive=True)]
                self._peak = max(self._peak, sum(p.memory_info().rss for p in tree))
            except psutil.NoSuchProcess:
                continue
