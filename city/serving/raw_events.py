"""Computes the features of the events of a request, as the stream does: with the earlier events of their keys."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import requests

from city.contracts.cells import with_cells
from city.contracts.model import Field
from city.contracts.schema import POLARS, bronze_schema
from city.features.events import LONGEST, EventRows
from city.models.model import Model
from city.models.raw_event import LOCAL
from city.questdb import QuestDBError, rows
from city.serving.batching import Rows
from city.serving.event_checks import Event, find_errors
from city.serving.inputs import Inputs
from city.settings import Settings
from city.sources.times import read_times
from city.web.problems import Problem

_MOST_ERRORS = 20
_KEYS = 200
"""The most keys of a query."""
_PLACE = "_place"
log = logging.getLogger(__name__)
ReadEvents = Callable[[list[str], datetime, datetime], pl.DataFrame]
"""Reads the events of some keys after a time and before another: a column for each field of the contract."""


class RawEvents:
    """Computes the features of a model that declares a RawEvent. Safe for several threads."""

    def __init__(self, model: Model, config: Settings, read_events: ReadEvents | None = None) -> None:
        """`read_events` reads the earlier events, in place of QuestDB."""
        assert model.event is not None
        self._model, self._event, self._config = model, model.event, config
        self._contract = model.event.contract
        self._rows = EventRows(model.view, self._contract, config)
        self._read_events = read_events or self._query
        self._inputs = Inputs(model)
        self._lock = threading.Lock()

    def features(self, events: Sequence[Event], paths: Sequence[str]) -> tuple[pl.DataFrame, Rows]:
        """Returns the columns that answers to events need, and the model's inputs (n, inputs). `paths` are theirs in
        the request.

        Raises Problem that names each wrong field, and (503) while the earlier events cannot be read.
        """
        now = datetime.now(UTC)
        requested = self._read(events, paths, now)
        key, at = self._contract.key, self._contract.event_time
        history = pl.concat([self._earlier(requested), requested])
        with self._lock:
            computed = self._rows.compute(history.drop(_PLACE).with_columns(history[_PLACE].cast(pl.String).alias(key)))
        (entity,) = self._model.view.entities
        keys = requested.select(pl.col(_PLACE).cast(pl.String).alias(entity), pl.col(at).alias(self._model.view.time))
        features = keys.join(computed, on=keys.columns, how="left", maintain_order="left")
        features = features.select(self._model.answer_columns)
        return features, self._inputs.rows(features)

    def _read(self, events: Sequence[Event], paths: Sequence[str], now: datetime) -> pl.DataFrame:
        """Returns the events as rows of bronze, with their place. Raises Problem."""
        errors = find_errors(self._event, events, paths, now)
        if errors:
            first = "; ".join(f"{name} {advice}" for name, advice in errors[:3])
            raise Problem(422, f"{self._model.name}: {first}", errors[:_MOST_ERRORS])
        fields = self._contract.fields
        frame = pl.DataFrame({f.name: _column(f, [event.get(f.name) for event in events]) for f in fields})
        at = self._contract.event_time
        frame = frame.with_columns(pl.col(at).fill_null(now), pl.int_range(pl.len(), dtype=pl.Int64).alias(_PLACE))
        local = frame.with_columns(pl.col(at).dt.convert_time_zone(self._config.timezone).alias(LOCAL))
        frame = local.with_columns(
            pl.coalesce(pl.col(name), default.cast(POLARS[self._contract.field(name).kind])).alias(name)
            for name, default in self._event.defaults.items()
        )
        return self._as_bronze(frame)

    def _as_bronze(self, frame: pl.DataFrame) -> pl.DataFrame:
        frame = with_cells(self._contract, frame)
        schema = bronze_schema(self._contract)
        missing = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in frame.columns]
        lineage = {"_arrived": pl.col(self._contract.event_time), "_partition": pl.lit(0, pl.Int32)}
        return frame.with_columns(missing).with_columns(**lineage, _offset=pl.lit(0)).select(*schema, _PLACE)

    def _earlier(self, requested: pl.DataFrame) -> pl.DataFrame:
        """Reads the events of the same keys before those of the request, each with the place of the requested one."""
        key, at, look_back = self._contract.key, self._contract.event_time, self._model.view.table.look_back
        moments = requested.filter(pl.col(key).is_not_null()).select(key, _PLACE, pl.col(at).alias("_at"))
        if moments.is_empty() or look_back is None:
            return requested.clear()
        first, last = moments["_at"].min(), moments["_at"].max()
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        stored = self._read_events(moments[key].unique(maintain_order=True).to_list(), first - LONGEST, last).sort(
            key, at
        )
        return self._as_bronze(_last_before(stored, moments, key, at, look_back))

    def _query(self, keys: list[str], since: datetime, until: datetime) -> pl.DataFrame:
        key, at, fields = self._contract.key, self._contract.event_time, self._contract.fields
        names = [field.name for field in fields]
        stored: list[list[object]] = []
        for first in range(0, len(keys), _KEYS):
            listed = ", ".join("'" + name.replace("'", "''") + "'" for name in keys[first : first + _KEYS])
            sql = (
                f"SELECT {', '.join(names)} FROM {self._contract.name} WHERE {key} IN ({listed}) "
                f"AND {at} > '{since:%Y-%m-%dT%H:%M:%S.%fZ}' AND {at} < '{until:%Y-%m-%dT%H:%M:%S.%fZ}'"
            )
            try:
                stored += rows(self._config.questdb, sql)
            except requests.RequestException:
                raise self._unreadable("QuestDB does not answer: try again, or") from None
            except QuestDBError as error:  # it has the statement and settings, which are not the client's
                log.error("the earlier events of %s cannot be read: %s", self._contract.name, error)
                raise self._unreadable("QuestDB refuses the query or the login. See the server's log, or") from None
        columns = [[row[n] for row in stored] for n in range(len(names))]
        return pl.DataFrame({f.name: _column(f, values) for f, values in zip(fields, columns, strict=True)})

    def _unreadable(self, reason: str) -> Problem:
        key = self._contract.key
        text = f"the earlier events of this {key} cannot be read, because {reason} leave out {key}"
        return Problem(503, text, headers={"retry-after": "5"})


def _last_before(events: pl.DataFrame, moments: pl.DataFrame, key: str, at: str, look_back: int) -> pl.DataFrame:
    """Selects for each of `moments` (key, `_place`, `_at`) the last events of its key before it, of at most LONGEST.

    `events` are sorted by key and time. A join would hold each event of a key for each moment of it.
    """
    spans = {name: (begin, begin + count) for name, begin, count in _runs(events[key])}
    times = events[at].dt.epoch("us").to_numpy()
    chosen_rows: list[int] = []
    places: list[int] = []
    for name, place, moment in moments.select(key, _PLACE, pl.col("_at").dt.epoch("us")).iter_rows():
        begin, end = spans.get(name, (0, 0))
        last = begin + int(np.searchsorted(times[begin:end], moment, "left"))
        oldest = begin + int(np.searchsorted(times[begin:end], moment - LONGEST / timedelta(microseconds=1), "right"))
        chosen = range(max(oldest, last - look_back), last)
        chosen_rows += chosen
        places += [place] * len(chosen)
    return events[chosen_rows].with_columns(pl.Series(_PLACE, places, dtype=pl.Int64))


def _runs(keys: pl.Series) -> Iterator[tuple[str, int, int]]:
    """Yields each key of a sorted column, the index of its first row, and the number of its rows."""
    begin = 0
    for name, count in keys.rle().struct.unnest().select("value", "len").iter_rows():
        yield name, begin, count
        begin += count


def _column(field: Field, values: Sequence[object]) -> pl.Series:
    if field.kind == "timestamp":
        return read_times(pl.Series(values, dtype=pl.String), field.zone)
    return pl.Series(values, dtype=POLARS[field.kind], strict=False)
