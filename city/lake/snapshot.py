"""Pins the lake's tables for one run: each table at one version, from the first read to the last.

Two reads of a table by its path may see two versions with different rows. So every read of a build, a training, a
prediction or a cost report goes through a snapshot. The first read of a table pins it. A run that writes a table itself
releases the table, and its next read sees the rows that it wrote.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import monotonic
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable

from city.contracts.model import Contract
from city.contracts.schema import TIMESTAMP, bronze_schema
from city.lake import cold
from city.lake.location import Location
from city.tables.model import DAY

_LONGEST_SECONDS = 45 * 60.0
"""The longest time for which a table stays pinned. It is shorter than the smallest CITY_VACUUM_HOURS."""
_STATISTICS_PRECISION = timedelta(milliseconds=1)
"""Times in the log's statistics may be truncated to milliseconds."""


class Snapshot:
    """Pins the tables of the lake at `root`, and the archived rows of bronze at `cold_storage` (none for None)."""

    def __init__(self, root: Path, cold_storage: Location | None = None) -> None:
        self.root = root
        self.cold_storage = cold_storage
        self._began = datetime.now(UTC)
        self._pinned: dict[str, float] = {}
        self._tables: dict[str, DeltaTable | None] = {}
        self._archived: dict[str, DeltaTable | None] = {}

    def table(self, name: str) -> DeltaTable | None:
        """Returns the table `layer/name` at its pinned version; None where it did not exist at the first call."""
        if name not in self._tables:
            path = self.root / name
            self._pinned[name] = monotonic()
            self._tables[name] = DeltaTable(path) if DeltaTable.is_deltatable(str(path)) else None
        return self._tables[name]

    def scan(self, name: str, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """Scans the table's rows; a frame without rows, of these columns, where the table does not exist."""
        table = self.table(name)
        return pl.LazyFrame(schema=schema) if table is None else pl.scan_delta(table)

    def archived(self, contract: Contract, begin: datetime | None = None) -> DeltaTable | None:
        """Returns the cold table with the contract's rows that the pinned bronze table no longer has.

        Returns None where it has no rows, or none from `begin` on. Bronze's log records which version of cold storage
        belongs to it, so a row that is being archived is in exactly one of the two tables.
        """
        bronze, path = self.table(f"bronze/{contract.name}"), self.cold_storage
        if bronze is None or path is None:
            return None
        border = cold.border(bronze, contract)
        if begin is not None and border is not None and begin >= border:
            return None
        if contract.name not in self._archived:
            self._archived[contract.name] = cold.open_matching(bronze, contract, path)
        return self._archived[contract.name]

    def events(self, contract: Contract, begin: datetime, end: datetime) -> pl.LazyFrame:
        """Scans the contract's bronze rows with event times in [begin, end), archived rows too."""
        columns, time = bronze_schema(contract), pl.col(contract.event_time)
        warm = self.scan(f"bronze/{contract.name}", columns).filter(time >= begin, time < end)
        if (archived := self.archived(contract, begin)) is None:
            return warm
        years = pl.col(cold.YEAR).is_between(begin.year, end.year)
        rows = pl.scan_delta(archived).filter(years, time >= begin, time < end)
        return pl.concat([warm, rows], how="diagonal").select(columns.keys())

    def release(self, *names: str) -> None:
        """Releases tables: the next read pins them again, at their newest version."""
        for name in names:
            self._tables.pop(name, None)
            self._archived.pop(name.removeprefix("bronze/"), None)

    def renew(self) -> None:
        """Releases tables that were pinned so long ago that a vacuum may delete their files.

        A run that takes hours calls it between two steps. Each step must see one version.
        """
        oldest = monotonic() - _LONGEST_SECONDS
        self.release(*[name for name, since in self._pinned.items() if since < oldest and name in self._tables])

    def is_outdated(self, name: str) -> bool:
        """Returns whether any process has written to the table `layer/name` since this snapshot began."""
        path = self.root / name
        if not DeltaTable.is_deltatable(str(path)):
            return False
        newest = DeltaTable(path).history(limit=1)
        return bool(newest) and newest[0].get("timestamp", 0) >= self._began.timestamp() * 1000

    def versions(self) -> dict[str, int]:
        """Returns the Delta version of each pinned table."""
        return {name: table.version() for name, table in sorted(self._tables.items()) if table is not None}

    def newest(self, name: str, time: str, span: timedelta) -> pl.LazyFrame | None:
        """Scans the rows of the last `span` up to the newest row, by the column `time`; None where there are no rows.

        The table is partitioned by `day`. Only the days that can have such rows are read.
        """
        days = self.newest_days(name, time, span)
        return pl.concat(days) if days else None

    def newest_of_each(self, name: str, keys: Sequence[str], time: str, span: timedelta) -> pl.DataFrame | None:
        """Reads the newest row for each value of `keys` among the rows that `newest` scans; None where there are none.

        Reads a day at a time, from the newest back, and of each day whole rows only for the keys that newer days do not
        have. So the memory does not depend on the number of days, and hardly on the number of rows.
        """
        found: list[pl.DataFrame] = []
        for rows in reversed(self.newest_days(name, time, span)):
            times = rows.group_by(keys).agg(pl.col(time).max())
            for newer in found:
                times = times.join(newer.lazy(), on=keys, how="anti")
            if (newest := times.collect(engine="streaming")).height:
                whole = rows.join(newest.lazy(), on=[*keys, time], how="semi").collect(engine="streaming")
                found.append(whole.unique(keys, keep="last"))
        return pl.concat(found) if found else None

    def newest_days(self, name: str, time: str, span: timedelta) -> list[pl.LazyFrame]:
        """Scans the rows that `newest` scans, a frame for each local day, the newest last."""
        table = self.table(name)
        days = sorted(day for day, rows in self.rows_by_day(name).items() if rows)
        if table is None or not days:
            return []
        rows = pl.scan_delta(table)
        newest: datetime = rows.filter(pl.col(DAY) == days[-1]).select(pl.col(time).max()).collect().item()
        first = days[-1] - timedelta(days=span.days + 2)  # a local day may have 23 hours; the newest has few rows
        return [rows.filter(pl.col(DAY) == day, pl.col(time) > newest - span) for day in days if day >= first]

    def latest(self, name: str, time: str) -> datetime | None:
        """Returns the greatest value of the column `time`, from the statistics in the log; None where there is none."""
        latest = self._read_files(name, time).get_column("latest").max()
        return latest if isinstance(latest, datetime) else None

    def since(self, name: str, time: str, moment: datetime, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """Scans the rows after `moment` of a table without partitions.

        Opens only the files that can have such rows. Polars itself opens every file.
        """
        table, files = self.table(name), self._read_files(name, time)
        recent = files.filter((pl.col("latest") > moment - _STATISTICS_PRECISION).fill_null(value=True))
        if table is None or recent.is_empty():
            return pl.LazyFrame(schema=schema)
        paths = [self.root / name / unquote(path) for path in recent["path"]]
        rows = pl.scan_parquet(paths, schema=schema, missing_columns="insert", extra_columns="ignore")
        return rows.filter(pl.col(time) > moment)

    def _read_files(self, name: str, time: str) -> pl.DataFrame:
        """Returns the table's files (`path`), and the greatest value of a column in each (`latest`), or null."""
        table = self.table(name)
        files = pl.DataFrame() if table is None else pl.DataFrame(table.get_add_actions(flatten=True))
        if files.is_empty():
            return pl.DataFrame(schema={"path": pl.String, "latest": TIMESTAMP})
        latest = pl.col(f"max.{time}") if f"max.{time}" in files.columns else pl.lit(None)
        return files.select("path", latest=latest.cast(TIMESTAMP))

    def rows_by_day(self, name: str) -> dict[date, int]:
        """Counts the rows of each local day of a table that is partitioned by `day`, from its log. Reads no data."""
        table = self.table(name)
        if table is None:
            return {}
        files = pl.DataFrame(table.get_add_actions(flatten=True))
        if files.is_empty():
            return {}
        days = files.select(day=pl.col(f"partition.{DAY}").cast(pl.Date), rows="num_records")
        return dict(days.drop_nulls("day").group_by("day").agg(pl.col("rows").sum()).sort("day").iter_rows())
