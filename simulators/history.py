"""The history of simulated sources: events of past days, a local day at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from city.contracts.model import Contract
from city.settings import Settings
from simulators.faults import DEFAULT_FAULTS
from simulators.world.local import LocalClock, to_date
from simulators.world.street_store import load_streets
from simulators.world.streets import has_streets

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Span:
    """The span of a history that is made at a time, in seconds since 1970. The whole history begins at `origin`.

    What a source says once, such as its announcement, is in the span that begins at `origin`.
    """

    clock: LocalClock
    seed: int
    origin: float
    begin: float
    end: float
    faults: float = DEFAULT_FAULTS

    @property
    def is_first(self) -> bool:
        """Whether the whole history begins with this span."""
        return self.begin == self.origin

    @property
    def days(self) -> range:
        """The numbers of the local days of the span (see `simulators.world.local`)."""
        return range(int(self.clock.at(self.begin).day), int(self.clock.at(self.end).day) + 1)

    @staticmethod
    def of(config: Settings, seed: int, origin: datetime, begin: datetime, end: datetime) -> "Span":
        """Builds a span in the city's local time. The first one loads the city's streets."""
        if not has_streets():
            load_streets(config)
        clock = LocalClock.from_settings(config)
        return Span(clock, seed, origin.timestamp(), begin.timestamp(), end.timestamp())


@dataclass(frozen=True)
class Chunk:
    """The events of one contract on one local day, in the order of their time.

    `rows` has the contract's fields. The event time is a timestamp in UTC.
    """

    contract: Contract
    day: date
    rows: "pl.DataFrame"


def by_day(contract: Contract, span: Span, batches: Iterable[tuple[int, "pl.DataFrame"]]) -> Iterator[Chunk]:
    """Yields the events of the span, a chunk for each local day that has some.

    `batches` has all events of a local day and the day's number, in the order of days. Their event time is in seconds
    since 1970. One day is in memory at a time.
    """
    import polars as pl

    time = contract.event_time
    moments = (pl.col(time) * 1_000).round().cast(pl.Int64).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    typed = moments.dt.cast_time_unit("us").alias(time)
    for day, batch in batches:
        rows = batch
        if span.clock.begin(day) < span.begin or span.clock.begin(day + 1) > span.end:
            rows = batch.filter((pl.col(time) >= span.begin) & (pl.col(time) < span.end))
        if rows.height:
            chunk = Chunk(contract, to_date(day), rows.with_columns(typed).sort(time))
            del batch, rows
            yield chunk
            del chunk


def split_days(contract: Contract, span: Span, rows: "pl.DataFrame") -> Iterator[tuple[int, "pl.DataFrame"]]:
    """Yields the numbers of the span's local days, each with the rows of the day. The times are in seconds."""
    import polars as pl

    for day in span.days:
        begin, end = span.clock.begin(day), span.clock.begin(day + 1)
        yield day, rows.filter(pl.col(contract.event_time).is_between(begin, end, closed="left"))
