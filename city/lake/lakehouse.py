"""Builds days of a table: reads its sources, applies its transform, and replaces those days, chunk by chunk."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import narwhals as nw
import polars as pl

from city.contracts.model import Contract
from city.contracts.registry import contracts
from city.contracts.schema import bronze_schema, is_history
from city.file_lock import file_lock
from city.lake import cold
from city.lake.build_result import BuildResult
from city.lake.engines import Engine, engine_of
from city.lake.location import Location, cold_location
from city.lake.snapshot import Snapshot
from city.lake.tables import open_table
from city.settings import Settings
from city.tables import calendar
from city.tables.cell_sources import CELL_SOURCES
from city.tables.model import Frame, Source, Table, TableError
from city.tables.registry import tables
from city.tables.schema import NARWHALS, partition_by, schema, with_optional
from city.tables.slices import HOUR, Slices, chunks, count_parts, hour_groups

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Lakehouse:
    """Builds and reads the lake's tables under `root`, with one engine and in one time zone.

    With a `snapshot` all its reads and builds belong to one run and see each table at one version. Without one, each
    build is a run of its own.
    """

    root: Path
    engine: Engine
    timezone: str
    country: str
    contracts: dict[str, Contract]
    tables: dict[str, Table]
    cold_storage: Location | None = None
    snapshot: Snapshot | None = None

    def path(self, table: str) -> Path:
        """Returns the path of the table `layer/name`."""
        return self.root / table

    def pinned(self) -> "Lakehouse":
        """Returns this lakehouse with a new snapshot: each table is pinned to its version at the first read."""
        return replace(self, snapshot=Snapshot(self.root, self.cold_storage))

    def build(
        self, table: Table, days: Sequence[date] = (), full: bool = False, progress: Progress = lambda line: None
    ) -> BuildResult:
        """Replaces the days of the table, or the whole table where it is not daily.

        The rows are a function of the sources alone, each at one version. Unless `full`, a table with hourly slices is
        built only for the hours that have new events. Two builds of a table run one after the other. `progress` gets
        a line after each piece.

        Raises TableError for a day before the table's first, or for a source without a declaration.
        """
        began = time.monotonic()
        if early := [day for day in days if day < table.first_day]:
            raise TableError(f"table {table.id!r} begins with {table.first_day}; it has no {min(early)}")
        path = self.path(table.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        run = self if self.snapshot else self.pinned()
        assert run.snapshot is not None
        sources = [source.table for source in table.sources.values()]
        with file_lock(path.with_name(f"{path.name}.build")):
            if run.snapshot.is_outdated(table.id):
                # Another run has built the table, maybe from newer sources. The pinned versions would take it back.
                run.snapshot.release(*sources)
            run.snapshot.renew()
            self.open(table)
            run.snapshot.release(table.id)
            built = run._build_table(table, days, full, progress)
            run.snapshot.release(table.id)
        versions = {name: at for name, at in run.snapshot.versions().items() if name in sources}
        rows = run.count(table, days if table.daily else None)
        return BuildResult(rows, len(days) if table.daily else 0, time.monotonic() - began, built, versions)

    def _build_table(self, table: Table, days: Sequence[date], full: bool, progress: Progress) -> int | None:
        """Builds the pieces of the table. Returns the number of hours that were built; None where all were."""
        path = self.path(table.id)
        try:
            if not table.daily:
                self.engine.replace(table, path, [self._cast_columns(table, self._transform(table, None))], None)
                return None
            hours = 0
            for slices in self._split_slices(table, days, full):
                self.engine.replace(table, path, self._build_parts(table, slices), slices)
                progress(f"{table.id}: {slices.first} to {slices.last}")
                hours += len(slices.hours or ())
                if self.snapshot is not None:
                    self.snapshot.renew()
        except self.engine.errors as error:
            sources = ", ".join(sorted(source.table for source in table.sources.values()))
            raise TableError(
                f"table {table.id!r} cannot be built from {sources}, and stays as it was: {_first_line(error)}. "
                "Where a file is broken, restore it, or rebuild the table it belongs to."
            ) from error
        return hours if table.hourly_slices and not full else None

    def open(self, table: Table) -> Path:
        """Creates the table where it does not exist, and returns its path.

        Raises ForeignTable where the path has a table with other columns.
        """
        columns, by = schema(table), partition_by(table)
        open_table(self.path(table.id), columns, by, may_add=columns.keys() - set(by) - set(table.key))
        return self.path(table.id)

    def count(self, table: Table, days: Sequence[date] | None = None) -> int:
        """Returns the number of rows of the table, or of some of its days, from the Delta log."""
        by_day = self.rows_by_day(table)
        return sum(by_day.values()) if days is None else sum(by_day.get(day, 0) for day in days)

    def rows_by_day(self, table: Table) -> dict[date | None, int]:
        """Returns the number of rows of each day, from the Delta log; under None for a table that is not daily."""
        snapshot = self.snapshot or Snapshot(self.root)
        if not table.daily:
            stored = snapshot.table(table.id)
            return {} if stored is None else {None: int(stored.count())}
        return dict(snapshot.rows_by_day(table.id).items())

    def read(self, table: Table | str) -> Frame:
        """Reads the whole table as a lazy frame of the engine. Raises TableError where the table is not there."""
        name = table if isinstance(table, str) else table.id
        stored = (self.snapshot or Snapshot(self.root)).table(name)
        if stored is None:
            raise TableError(f"table {name!r} is not in the lake at {self.root}: build it first")
        return self.engine.scan(stored)

    def _build_parts(self, table: Table, slices: Slices) -> Iterator[Frame]:
        """Yields the rows of the slices in parts, so that the memory is bounded."""
        for piece, number, parts in self._split_parts(table, slices):
            rows = self._transform(table, piece, (number, parts))
            if any(source.days_before for source in table.sources.values()):
                rows = rows.filter(piece.expr())
            yield self._cast_columns(table, rows)

    def _split_parts(self, table: Table, slices: Slices) -> Iterator[tuple[Slices, int, int]]:
        """Yields the parts of slices: some hours, and which of how many parts of their keys.

        A part of the keys has all rows of some values of the key's first column. A table whose rows depend on rows
        with other values has one part (see `Table`). Hours come first, because a part of an hour is a file of its own.
        """
        most_rows, sources = self.engine.part_rows, table.sources.values()
        contract = next((c for source in sources if (c := self._source_contract(source)) is not None), None)
        if most_rows is None or not (table.look_back or table.hourly_slices):
            yield slices, 0, 1
        elif contract is not None:
            rows = self._count_by_hour(contract, slices)
            for hours in hour_groups(rows, most_rows):
                parts = count_parts(sum(rows[hour] for hour in hours), most_rows)
                yield from ((Slices(slices.first, slices.last, hours), number, parts) for number in range(parts))
        else:
            spans = [(self.tables.get(source.table), slices.before(source.days_before).days()) for source in sources]
            counts = [self.count(declared, days) for declared, days in spans if declared and declared.daily]
            parts = count_parts(max(counts, default=0), most_rows)
            yield from ((slices, number, parts) for number in range(parts))

    def _count_by_hour(self, contract: Contract, slices: Slices) -> dict[int, int]:
        """Counts a contract's events in each local hour of the slices."""
        calendar_slots = self._read_calendar(slices)
        events = calendar.on_calendar(self._read_events(contract, slices), contract.event_time, calendar_slots)
        return dict(self.engine.collect(events.group_by(HOUR).agg(n=nw.len())).sort(HOUR).iter_rows())

    def _split_slices(self, table: Table, days: Sequence[date], full: bool) -> Iterator[Slices]:
        """Yields the slices that are built at a time. Finds the hours with new events just before a day is built."""
        streams = [c for s in table.sources.values() if (c := self._source_contract(s)) is not None]
        if not streams:
            rows: dict[date, int] = {}
            for source in table.sources.values():
                if (declared := self.tables.get(source.table)) and declared.daily:
                    for day, count in self.rows_by_day(declared).items():
                        if day is not None:
                            rows[day] = rows.get(day, 0) + count
            limit = 10 * self.engine.part_rows if table.look_back and self.engine.part_rows else self.engine.chunk_rows
            yield from chunks(days, rows, limit)
            return
        for day in sorted(days):
            piece = Slices(day, day)
            if full or not table.hourly_slices:
                yield piece
            elif hours := self._find_fresh_hours(table, streams[0], piece):
                yield Slices(day, day, hours)

    def _find_fresh_hours(self, table: Table, contract: Contract, day: Slices) -> tuple[int, ...]:
        """Returns the local hours with events that are in bronze and not in silver.

        Silver has all events up to its largest offset of each partition, because a batch is appended to bronze whole.
        That goes for the history of a day, too, whose offsets are negative (`city.streaming.history`).
        """
        origin, marked = ["_partition", "_is_history"], is_history(nw.col("_offset")).alias("_is_history")
        rows = self.read(table).filter(day.expr()).with_columns(marked)
        seen = rows.group_by(*origin).agg(seen=nw.col("_offset").max())
        events = calendar.on_calendar(self._read_events(contract, day), contract.event_time, self._read_calendar(day))
        events = events.select(HOUR, "_offset", marked, nw.col("_partition").cast(nw.Int64))
        fresh = events.join(seen, on=origin, how="left").filter(
            nw.col("seen").is_null() | (nw.col("_offset") > nw.col("seen"))
        )
        return tuple(sorted(self.engine.collect(fresh.select(HOUR).unique())[HOUR].to_list()))

    def _transform(self, table: Table, slices: Slices | None, part: tuple[int, int] = (0, 1)) -> Frame:
        if table.transform is None:
            raise TableError(f"table {table.id!r} has no transform: it is loaded, not built")
        frames = {
            name: self._read_source(table, source, slices)
            for name, source in table.sources.items()
            if source.table not in CELL_SOURCES
        }
        for name, frame in frames.items() if part[1] > 1 else ():
            if table.key[0] in frame.collect_schema().names():
                frames[name] = self.engine.part(frame, table.key[0], *part)
        for name, source in table.sources.items():
            if source.table in CELL_SOURCES:
                cells = self.engine.collect(frames[source.cell_source].select("cell").unique())
                frames[name] = self.engine.local(CELL_SOURCES[source.table](cells["cell"]))
        return table.transform(**frames)

    def _read_source(self, table: Table, source: Source, slices: Slices | None) -> Frame:
        span = slices.before(source.days_before) if slices and source.days_before else slices
        if source.table == calendar.REFERENCE_CALENDAR:
            assert span is not None
            return self._read_calendar(span)
        if (contract := self._source_contract(source)) is not None:
            return self.engine.where(self._read_events(contract, span), source.where)
        declared = self.tables.get(source.table)
        if declared is None:
            names = sorted([*self.tables, *(f"bronze/{name}" for name in self.contracts)])
            raise TableError(f"table {table.id!r} is made from {source.table!r}, which nobody declares; known: {names}")
        if (self.snapshot or Snapshot(self.root)).table(declared.id) is None:
            return self.engine.local(pl.DataFrame(schema=schema(declared)))
        frame = self.engine.where(with_optional(declared, self.read(declared)), source.where)
        return frame.filter(span.expr()) if declared.daily and span else frame

    def _read_events(self, contract: Contract, slices: Slices | None) -> Frame:
        """Reads a contract's events, archived ones too, from the first hour of the slices to the last."""
        snapshot = self.snapshot or Snapshot(self.root, self.cold_storage)
        bronze = snapshot.table(f"bronze/{contract.name}")
        if bronze is None:
            return self.engine.local(pl.DataFrame(schema=bronze_schema(contract)))
        frame = self.engine.scan(bronze)
        if slices is None:
            archived = snapshot.archived(contract)
            return frame if archived is None else cold.append_archived(frame, self.engine.scan(archived))
        begin, end = calendar.span_of(slices, self.timezone, self.country)
        moment = nw.col(contract.event_time)
        within = (moment >= nw.lit(begin)) & (moment < nw.lit(end))
        archived = snapshot.archived(contract, begin)
        if archived is None:
            return frame.filter(within)
        years = nw.col(cold.YEAR).is_between(begin.year, end.year)
        return cold.append_archived(frame.filter(within), self.engine.scan(archived).filter(years & within))

    def _read_calendar(self, slices: Slices) -> Frame:
        slots = calendar.calendar(slices.days(), self.timezone, self.country)
        if slices.hours is not None:
            slots = slots.filter(pl.col(HOUR).is_in(slices.hours))
        return self.engine.local(slots)

    def _source_contract(self, source: Source) -> Contract | None:
        layer, _, name = source.table.partition("/")
        return self.contracts.get(name) if layer == "bronze" else None

    def _cast_columns(self, table: Table, frame: Frame) -> Frame:
        """Returns the declared columns, in their order and types. Raises TableError where one is missing."""
        missing = sorted({c.name for c in table.columns} - set(frame.collect_schema().names()))
        if missing:
            raise TableError(f"the transform of {table.id!r} gives no column {', '.join(missing)}")
        return frame.select(nw.col(c.name).cast(NARWHALS[c.kind]) for c in table.columns)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def lakehouse(config: Settings, root: Path | None = None) -> Lakehouse:
    """Creates the lakehouse of the settings (or the one at `root`), with every declared table and contract."""
    return Lakehouse(
        root=root or config.lake,
        engine=engine_of(config),
        timezone=config.timezone,
        country=config.country,
        contracts={contract.name: contract for contract in contracts(config)},
        tables=tables(),
        cold_storage=cold_location(config),
    )
