"""Sends the history that bronze has to QuestDB: the rows that its tables keep, with their windows."""

from datetime import UTC, datetime, timedelta

import polars as pl

from city.contracts.model import Contract
from city.contracts.schema import bronze_schema, is_history
from city.lake import bronze_path
from city.lake.tables import scan
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.sinks.questdb import QuestDBSink, ensure_tables
from city.streaming.windows import compute

_HOUR = timedelta(hours=1)


def send_history(config: Settings, contract: Contract, before: datetime | None = None) -> None:
    """Sends the rows of history that are younger than the tables' time to live, the newest hours first.

    With `before` it sends the events before that time only, and the windows of their hours.

    Rows that are sent twice are there once, because the tables deduplicate. The offsets of history are negative, so
    the stream's position, which is the largest offset, does not change. Raises an error of the client where QuestDB is
    unavailable.
    """
    ensure_tables(config.questdb, contract)
    sink = QuestDBSink(contract, config.questdb, BronzeStream(config.lake, contract))
    sink.connect()
    try:
        time = pl.col(contract.event_time)
        rows = scan(bronze_path(config.lake, contract), bronze_schema(contract))
        recent = rows.filter(time > datetime.now(UTC) - contract.ttl)
        is_sent = is_history(pl.col("_offset")) & (pl.lit(True) if before is None else time < before)
        hours = recent.filter(is_sent).select(time.dt.truncate("1h").unique().alias("hour"))
        for hour in hours.collect(engine="streaming")["hour"].sort(descending=True):
            events = recent.filter(time.is_between(hour, hour + _HOUR, closed="left")).collect()
            for window in contract.windows:  # of an hour that has live events, too
                sink.send_windows(window, compute(contract, window, events), window.name)
            sink.send_events(events.filter(is_sent), contract.name)
    finally:
        sink.close()
