"""Makes history of recorded events: appends their local days to bronze, then builds the domain's tables of these days.

The city may run meanwhile. A day is one append with a transaction of its own, which excludes no commit of the stream,
and two builds of a table run one after the other. Two imports exclude each other (`lock`).

Each step can be interrupted and repeated. A day is in bronze once, and a table is built for the days that it lacks.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from city import local_time
from city.contracts.model import Contract
from city.contracts.registry import Domain, domain_with
from city.file_lock import file_lock
from city.lake.lakehouse import lakehouse
from city.lake.location import cold_location
from city.lake.snapshot import Snapshot
from city.settings import Settings
from city.stack.history_plan import FOLDER, load_plan
from city.stack.home import check_folders
from city.streaming.history import AppendedDay, append_day, select_days_of
from city.tables.model import Table
from city.tables.registry import select_tables, tables_of
from city_assets.empty_days import EmptyDays
from city_assets.history import blocks
from city_assets.history_actions import build_days
from city_assets.tables import is_live

_NAMED_DAYS = 5


@dataclass(frozen=True)
class Recording:
    """Recorded events of a contract.

    `source` names in bronze's log where they come from. `days` are the local days that have events, ascending. `read`
    returns the events of a day: the contract's fields, and the event time in UTC.
    """

    source: str
    contract: Contract
    days: Sequence[date]
    read: Callable[[date], pl.DataFrame]


@dataclass(frozen=True)
class TableBuild:
    """Days of a table that are built at a time; no days for a table that is not daily."""

    table: Table
    days: Sequence[date]


def lock(config: Settings) -> AbstractContextManager[None]:
    """Holds the lock of imports. Raises RuntimeError where another process holds it."""

    def refuse(process: str) -> None:
        raise RuntimeError(f"another import of recorded history is running (process {process}): wait for its end")

    check_folders(config.home)
    folder = config.home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return file_lock(folder / "recorded", refuse)


def check_days(config: Settings, recording: Recording) -> None:
    """Raises ValueError that names the days on which bronze has events of another source, or soon will have."""
    days = set(recording.days) - select_days_of(config.lake, recording.contract, recording.source, recording.days)
    if not days:
        return
    plan = load_plan(config)
    is_planned = plan is not None and plan.has(domain_with(recording.contract).name)
    planned = set(plan.local_days) if plan is not None and is_planned else set()
    if others := sorted(days & (planned | _days_with_events(config, recording.contract, days))):
        raise ValueError(
            f"bronze/{recording.contract.name}: {name_days(others)} has events of another source (the simulated "
            "history, or the stream), and a day has one source. Leave these days out with --first and --last, or "
            "set CITY_HOME to an empty folder and import before the first `city up`."
        )


def append(config: Settings, recording: Recording) -> Iterator[tuple[date, AppendedDay | None]]:
    """Appends the days to bronze, the oldest first. Yields each with its counts, or None where bronze has it already.

    The events of a day that bronze has are not read.
    """
    present = select_days_of(config.lake, recording.contract, recording.source, recording.days)
    for day in recording.days:
        if day in present:
            yield day, None
        else:
            yield day, append_day(config.lake, recording.contract, day, recording.read(day), source=recording.source)


def table_builds(config: Settings, recording: Recording, appended: Collection[date]) -> list[TableBuild]:
    """Lists what is to be built, sources first: the days that were appended, and those that a table lacks.

    A table does not lack a day for which it was built without rows, unless the day has new input.
    """
    domain = domain_with(recording.contract)
    house, empty = lakehouse(config), _empty_days(config)
    builds: list[TableBuild] = []
    due: dict[str, list[date]] = {}
    for table in _tables_in_order(domain):
        if table.daily:
            # A day is not unchanged where one of its sources is built first, and may get rows.
            changing = {
                day + timedelta(days=ago)
                for source in table.sources.values()
                for day in due.get(source.table, ())
                for ago in range(source.days_before + 1)
            }
            built = house.rows_by_day(table).keys() | (empty.unchanged(table, recording.days) - changing)
            days = due[table.id] = _days_to_build(table, recording.days, appended, built)
            builds += [TableBuild(table, block) for block in blocks(days)]
        elif appended:
            builds.append(TableBuild(table, []))
    return builds


def build(config: Settings, builds: Sequence[TableBuild]) -> Iterator[TableBuild]:
    """Builds tables, and yields what was built after each step."""
    empty = _empty_days(config)
    for step in builds:
        states = empty.states(step.table, step.days) if step.table.daily else {}
        build_days(config, step.table, step.days)
        if step.table.daily:
            empty.note(step.table, states)
        yield step


def _empty_days(config: Settings) -> EmptyDays:
    return EmptyDays(config, config.home / FOLDER / "empty_days.json")


def name_days(days: Sequence[date]) -> str:
    """Returns a text that names the first of the days, and counts the others."""
    named = ", ".join(map(str, days[:_NAMED_DAYS]))
    return named + (f" and {len(days) - _NAMED_DAYS:,} more days" if len(days) > _NAMED_DAYS else "")


def _days_with_events(config: Settings, contract: Contract, days: Collection[date]) -> set[date]:
    """Returns the local days from the first to the last of `days` on which bronze has events, archived ones too."""
    begin, _ = local_time.bounds(min(days), config.timezone)
    _, end = local_time.bounds(max(days), config.timezone)
    events = Snapshot(config.lake, cold_location(config)).events(contract, begin, end)
    local = pl.col(contract.event_time).dt.convert_time_zone(config.timezone).dt.date()
    return set(events.select(day=local).unique().collect(engine="streaming")["day"])


def _tables_in_order(domain: Domain) -> list[Table]:
    """Lists the domain's tables that derive from a stream, each after its own sources."""
    names = {table.id for table in tables_of(domain) if table.transform is not None and is_live(table)}
    return [table for table in select_tables(sorted(names)) if table.id in names]


def _days_to_build(
    table: Table, days: Sequence[date], appended: Collection[date], built: Collection[date | None]
) -> list[date]:
    """Returns the days that are new or missing, and the built days after them that look back at a new day."""
    due = {day for day in days if day in appended or day not in built}
    ahead = max((source.days_before for source in table.sources.values()), default=0)
    following = {day + timedelta(days=n) for day in due for n in range(1, ahead + 1)}
    return sorted(due | (following & set(built)))
