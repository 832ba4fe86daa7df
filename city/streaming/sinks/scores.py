"""Scores each event by the champions of models. Scores go to Kafka at once, and to a record of scores.

Each commit to the record (`scores/<model>`) carries an application transaction for each partition, as bronze's commits
do, so an event is in it once. A message carries an id made of topic, partition and offset, so a listener can drop the
messages that a restart repeats. A champion is swapped between two batches. Events that came while there was no champion
are not scored later.
"""

import logging
import time
from datetime import UTC, datetime

import numpy as np
import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from numpy.typing import NDArray

from city.arrays import Floats
from city.contracts.model import Contract
from city.lake.tables import open_table
from city.models.anomaly import SHARES
from city.models.attribution import explained
from city.models.champions import Champions, Serving
from city.models.examples import inputs, select_rows
from city.models.model import Model, models
from city.models.predictions import ID, LATENCY, OUTPUT, VERSION, answers, record_columns, scores_schema
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.publish import Publisher, event_id
from city.streaming.records import Offsets
from city.streaming.sinks.base import Sink
from city.streaming.sinks.features import Events, earlier_events
from city.streaming.topics import ensure_topics
from city.streaming.windows import Changed
from city.tables.model import DAY

log = logging.getLogger(__name__)

CONTRIBUTIONS = "contributions"
_EXPLAINED = 20
"""The number of a batch's last scores that are explained. A batch has more only while the stream catches up, and
explanations must not delay that."""
_RECORD_SECONDS = 10.0
_RECORD_ROWS = 20_000


def live_models(contract: Contract) -> list[Model]:
    """Returns the models that score the contract's events as they come."""
    return [model for model in models().values() if model.stream is not None and model.view.events(contract)]


class ScoreSink(Sink):
    """Scores each batch's events by the current champions."""

    name = "scores"

    def __init__(self, contract: Contract, config: Settings, bronze: BronzeStream) -> None:
        self._contract, self._config, self._bronze = contract, config, bronze
        self._models = live_models(contract)
        self._events = {
            view.name: Events(view, contract, config) for view in {m.features: m.view for m in self._models}.values()
        }
        self._champions: Champions | None = None
        self._publisher: Publisher | None = None
        self._records: dict[str, Record] = {}
        self._recorded_at = 0.0

    def open(self, recorded: Offsets) -> Offsets:
        """Loads the champions and connects the producer. Returns the lowest position of the models' records."""
        self._records = {}  # rows that wait in them are read from bronze again
        self.close()
        self._champions = Champions(self._config, self._models)
        self._champions.start()  # waits for the registry's first response; events of that time are read from bronze
        topics = [model.stream.topic for model in self._models if model.stream]
        ensure_topics(self._config.kafka, [self._contract], topics)
        self._publisher = Publisher(self._config.kafka)
        self._records = {model.name: Record(self._config, self._contract, model) for model in self._models}
        now = dict(self._bronze.position)
        positions = [self._records[m.name].begin(now) for m in self._models if self._champions.champion(m)]
        position = {p: min([now[p], *(reached.get(p, now[p]) for reached in positions)]) for p in now}
        earlier = earlier_events(self._contract, self._bronze, position)
        for events in self._events.values():
            events.hold(earlier)
        self._recorded_at = time.monotonic()
        return position

    def apply(self, rows: pl.DataFrame, start: Offsets, changed: Changed) -> None:
        """Scores the events, publishes the scores, and adds them to the models' records."""
        assert self._champions is not None
        assert self._publisher is not None
        at = [self._contract.key, self._contract.event_time]
        places = rows.unique(at, keep="first", maintain_order=True).select(*at, "_partition", "_offset")
        for name, events in self._events.items():
            serving = [
                (m, s) for m in self._models if m.features == name and (s := self._champions.champion(m)) is not None
            ]
            if not serving:
                events.keep(rows)
                continue
            features = events.add(rows)
            for model, champion in serving:
                self._records[model.name].begin(start)
                keys = [*model.view.entities, model.view.time]
                placed = select_rows(model, features).join(places, left_on=keys, right_on=at, maintain_order="left")
                self._score_rows(model, champion, placed)
        self._publisher.flush()
        self.idle()

    def idle(self) -> None:
        """Writes the records when the last write is some seconds ago, or many rows wait."""
        waited = time.monotonic() - self._recorded_at
        if waited > _RECORD_SECONDS or any(record.waiting > _RECORD_ROWS for record in self._records.values()):
            self._write_records()

    def close(self) -> None:
        """Stops the champions, writes the records, and closes the producer."""
        if self._champions is not None:
            self._champions.stop()
            self._champions = None
            self._write_records()
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def _score_rows(self, model: Model, serving: Serving, rows: pl.DataFrame) -> None:
        assert self._publisher is not None
        assert model.stream is not None
        if rows.is_empty():
            return
        scores = score_rows(model, serving, rows, self._contract.topic, datetime.now(UTC))
        message = model.stream.message(scores).with_columns(
            id=scores[ID], model_version=scores[VERSION], _key=scores[model.view.entities[0]]
        )
        self._publisher.publish(model.stream.topic, message)
        self._records[model.name].add(scores)

    def _write_records(self) -> None:
        for record in self._records.values():
            record.write()
        self._recorded_at = time.monotonic()


def score_rows(model: Model, serving: Serving, rows: pl.DataFrame, topic: str, now: datetime) -> pl.DataFrame:
    """Scores a view's rows (with `_partition` and `_offset`) by the champion.

    Returns the rows with the columns of `answers`, `id`, `version`, `for`, `latency_ms` (from the event to `now`) and
    `contributions` by input. Contributions are there for each row of an anomaly model, and for the rows that the
    model's stream wants explained; they are null for the others.
    """
    model_inputs = inputs(model, rows)
    outputs = serving.exported.predict(model_inputs)
    scores = rows.with_columns(
        *record_columns(model, serving.number),
        event_id(topic).alias(ID),
        ((pl.lit(now) - pl.col(model.view.time)).dt.total_microseconds() / 1000).alias(LATENCY),
    )
    scores = pl.concat([scores, answers(model, serving.exported.calibration, outputs, rows)], how="horizontal")
    if model.kind == "anomaly":
        return scores.with_columns(_contributions(model, outputs[:, SHARES:]))
    return scores.with_columns(_explanations(model, serving, model_inputs, scores))


def _contributions(model: Model, shares: Floats) -> pl.Series:
    return pl.DataFrame(shares, schema=list(model.inputs)).to_struct(CONTRIBUTIONS)


def _explanations(model: Model, serving: Serving, model_inputs: NDArray[np.float32], scores: pl.DataFrame) -> pl.Series:
    """Returns the contributions to the scores that the model's stream wants explained, null for the others."""
    condition = model.stream.explained if model.stream else None
    shares: list[dict[str, float] | None] = [None] * scores.height
    if condition is not None and serving.exported.calibration.background:  # older versions have no background
        for row in scores.select(condition.fill_null(value=False).arg_true()).to_series().to_list()[-_EXPLAINED:]:
            output = scores[OUTPUT][row]
            place = 1 if len(output) == 2 else int(np.argmax(output))
            shares[row], _ = explained(serving.exported, model, model_inputs[row : row + 1], place)
    return pl.Series(CONTRIBUTIONS, shares, pl.Struct(dict.fromkeys(model.inputs, pl.Float64())))


class Record:
    """Appends one model's scores to its table, and tracks the table's position."""

    def __init__(self, config: Settings, contract: Contract, model: Model) -> None:
        self._path, self._app = config.lake / "scores" / model.name, f"scores/{contract.topic}/{model.name}"
        self._schema = {**scores_schema(model), DAY: pl.Date()}
        self._table: DeltaTable | None = None
        self._waiting: list[pl.DataFrame] = []
        self._reached: Offsets = {}

    @property
    def waiting(self) -> int:
        """The number of rows that wait to be written."""
        return sum(rows.height for rows in self._waiting)

    def begin(self, position: Offsets) -> Offsets:
        """Returns the table's position. For a new partition it commits `position` to the log as the start."""
        if self._table is None:
            self._table = open_table(self._path, self._schema, [DAY], may_add=self._schema.keys())
        if fresh := position.keys() - self._reached.keys():
            versions = {p: self._table.transaction_version(f"{self._app}/{p}") for p in fresh}
            first = {p: position[p] for p, version in versions.items() if version is None}
            if first:
                self._commit_rows(pl.DataFrame(schema=self._schema), first)
            self._reached |= first | {p: version for p, version in versions.items() if version is not None}
        return self._reached

    def add(self, rows: pl.DataFrame) -> None:
        """Adds the rows that the table does not have yet to the waiting rows."""
        starts = pl.DataFrame(list(self._reached.items()), {"_partition": pl.Int32, "_from": pl.Int64}, orient="row")
        fresh = rows.join(starts, on="_partition", how="left", maintain_order="left")
        self._waiting.append(fresh.filter(pl.col("_offset") >= pl.col("_from").fill_null(0)))

    def write(self) -> None:
        """Commits the waiting rows. Raises CommitFailedError where another process writes to the table too."""
        rows = pl.concat(self._waiting) if self._waiting else None
        if rows is None or rows.is_empty() or self._table is None:
            self._waiting = []
            return
        ends = dict(rows.group_by("_partition").agg(pl.col("_offset").max() + 1).iter_rows())
        self._commit_rows(rows.select(*self._schema), ends)
        self._reached |= ends
        self._waiting = []

    def _commit_rows(self, rows: pl.DataFrame, ends: Offsets) -> None:
        assert self._table is not None
        marks = [Transaction(f"{self._app}/{partition}", end) for partition, end in ends.items()]
        marked = CommitProperties(app_transactions=marks)
        write_deltalake(self._table, rows, mode="append", commit_properties=marked)


def score_sink(contract: Contract, config: Settings, bronze: BronzeStream) -> Sink | None:
    """Creates the contract's score sink. Returns None for a contract whose events no model scores."""
    return ScoreSink(contract, config, bronze) if live_models(contract) else None
