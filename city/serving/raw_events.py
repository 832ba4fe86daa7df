"""Computes features of events that a request gives: as the stream does, with the earlier events of their keys."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import requests

from city.contracts.cells import with_cells
from city.contracts.model import Field
from city.contracts.schema import POLARS, bronze_schema
from city.contracts.validity import span, words
from city.features.events import LONGEST, EventRows
from city.models.model import Model
from city.models.raw_event import LOCAL
from city.questdb import QuestDBError, rows
from city.serving.batching import Rows
from city.serving.inputs import Inputs, Value
from city.settings import Settings
from city.sources.times import ISO_8601, read_times, received
from city.web.problems import Problem

_MOST_ERRORS = 20
_KEYS = 200
"""How many keys a query asks for."""
_PLACE = "_place"
Event = Mapping[str, Value]
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
        given = self._read(events, paths, now)
        key, at = self._contract.key, self._contract.event_time
        both = pl.concat([self._earlier(given), given])
        with self._lock:
            found = self._rows.compute(both.drop(_PLACE).with_columns(both[_PLACE].cast(pl.String).alias(key)))
        (entity,) = self._model.view.entities
        asked = given.select(pl.col(_PLACE).cast(pl.String).alias(entity), pl.col(at).alias(self._model.view.time))
        features = asked.join(found, on=asked.columns, how="left", maintain_order="left")
        features = features.select(self._model.answer_columns)
        return features, self._inputs.rows(features)

    def _read(self, events: Sequence[Event], paths: Sequence[str], now: datetime) -> pl.DataFrame:
        """Returns the events as rows of bronze, with their place. Raises Problem."""
        errors = [error for event, path in zip(events, paths, strict=True) for error in self._errors(event, path, now)]
        if errors:
            told = "; ".join(f"{name} {what}" for name, what in errors[:3])
            raise Problem(422, f"{self._model.name}: {told}", errors[:_MOST_ERRORS])
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

    def _errors(self, event: Event, path: str, now: datetime) -> list[tuple[str, str]]:
        """Returns path and advice for each wrong field of an event."""
        known = {field.name: field for field in self._contract.fields}
        errors = [(f"{path}.{name}", "is missing") for name in self._event.needed if event.get(name) is None]
        for name, value in event.items():
            field = known.get(name)
            if field is None and name not in self._event.unused:
                errors.append((f"{path}.{name[:60]}", f"is no field of {self._contract.name}: leave it out"))
            elif field is not None and value is not None and (wrong := _what_is_wrong(field, value)):
                errors.append((f"{path}.{name}", wrong))
        at = self._contract.event_time
        if isinstance(text := event.get(at), str):
            moment = read_times(pl.Series([text]), known[at].zone)[0]
            ahead, age = self._contract.max_ahead, self._contract.max_age
            if moment is not None and moment > now + ahead:
                errors.append((f"{path}.{at}", f"is more than {words(ahead)} ahead"))
            elif moment is not None and moment < now - age:
                errors.append((f"{path}.{at}", f"is more than {words(age)} old"))
        return errors

    def _earlier(self, given: pl.DataFrame) -> pl.DataFrame:
        """Reads the events before those that are given, of the same keys, each with the place of the given one."""
        key, at, look_back = self._contract.key, self._contract.event_time, self._model.view.table.look_back
        asked = given.filter(pl.col(key).is_not_null()).select(key, _PLACE, pl.col(at).alias("_at"))
        if asked.is_empty() or look_back is None:
            return given.clear()
        first, last = asked["_at"].min(), asked["_at"].max()
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        found = self._read_events(asked[key].unique(maintain_order=True).to_list(), first - LONGEST, last).sort(key, at)
        return self._as_bronze(_last_before(found, asked, key, at, look_back))

    def _query(self, keys: list[str], since: datetime, until: datetime) -> pl.DataFrame:
        key, at, fields = self._contract.key, self._contract.event_time, self._contract.fields
        names = [field.name for field in fields]
        found: list[list[object]] = []
        for first in range(0, len(keys), _KEYS):
            listed = ", ".join("'" + name.replace("'", "''") + "'" for name in keys[first : first + _KEYS])
            sql = (
                f"SELECT {', '.join(names)} FROM {self._contract.name} WHERE {key} IN ({listed}) "
                f"AND {at} > '{since:%Y-%m-%dT%H:%M:%S.%fZ}' AND {at} < '{until:%Y-%m-%dT%H:%M:%S.%fZ}'"
            )
            try:
                found += rows(self._config.questdb, sql)
            except (QuestDBError, requests.RequestException):
                raise Problem(
                    503,
                    f"the earlier events of this {key} cannot be read, because QuestDB does not answer: try again, or "
                    f"leave out {key}",
                    headers={"retry-after": "5"},
                ) from None
        columns = [[row[n] for row in found] for n in range(len(names))]
        return pl.DataFrame({f.name: _column(f, values) for f, values in zip(fields, columns, strict=True)})


def _last_before(events: pl.DataFrame, asked: pl.DataFrame, key: str, at: str, look_back: int) -> pl.DataFrame:
    """Selects for each of `asked` the last events of its key before its time, of at most LONGEST.

    `events` are sorted by key and time. A join would hold each event of a key for each that is asked of it.
    """
    spans = {name: (begin, begin + count) for name, begin, count in _runs(events[key])}
    times = events[at].dt.epoch("us").to_numpy()
    rows: list[int] = []
    places: list[int] = []
    for name, place, moment in asked.select(key, _PLACE, pl.col("_at").dt.epoch("us")).iter_rows():
        begin, end = spans.get(name, (0, 0))
        last = begin + int(np.searchsorted(times[begin:end], moment, "left"))
        oldest = begin + int(np.searchsorted(times[begin:end], moment - LONGEST / timedelta(microseconds=1), "right"))
        chosen = range(max(oldest, last - look_back), last)
        rows += chosen
        places += [place] * len(chosen)
    return events[rows].with_columns(pl.Series(_PLACE, places, dtype=pl.Int64))


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


def _what_is_wrong(field: Field, value: Value) -> str | None:
    """Returns what is wrong with the value of a field, or None. A word that is not among its choices is not wrong."""
    if field.kind in ("float", "integer"):
        if isinstance(value, bool | str) or value is None or not math.isfinite(value):
            return "is no number"
        low = -math.inf if field.minimum is None else field.minimum
        high = math.inf if field.maximum is None else field.maximum
        if not low <= value <= high:
            is_bounded = field.minimum is not None and field.maximum is not None
            return f"is {'outside' if is_bounded else 'not'} {span(field.minimum, field.maximum, field.unit)}"
        return "is no whole number" if field.kind == "integer" and value != int(value) else None
    if field.kind == "boolean":
        return None if isinstance(value, bool) else "is neither true nor false"
    if not isinstance(value, str):
        return "is no text"
    if field.kind == "timestamp" and read_times(pl.Series([value]), field.zone)[0] is None:
        return f"is {received(value)}, not {ISO_8601}"
    if field.pattern and not pl.Series([value]).str.contains(f"^(?:{field.pattern})$")[0]:
        return f"does not match {field.pattern}"
    return None
