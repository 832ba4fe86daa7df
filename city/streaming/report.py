"""Reports a stream's counters, rates, lag and latency, for status, the asset graph and metrics."""

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import numpy as np
import polars as pl

from city.arrays import Floats
from city.stack.progress import Samples
from city.stack.reports import GrownDays, StreamSummary

BRONZE, QUARANTINE = "bronze", "quarantine"
_HORIZON = 10.0  # seconds over which rates and latencies are measured
_GROWN_SECONDS = 86_400.0
_SAMPLE = 200  # latencies that are stored of each batch


@dataclass
class StreamReport:
    """The report of one contract's stream. The pipeline writes it; any thread may read it.

    `rows` and `quarantined` count messages since the start. `late` counts events that changed a window after its end,
    `too_late` those that no longer could. `lag` is the number of messages that Kafka has and the stream has not read.
    """

    topic: str
    rows: int = 0
    quarantined: int = 0
    late: int = 0
    too_late: int = 0
    lag: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    sinks: dict[str, int] = field(default_factory=dict)
    timezone: str = "UTC"
    grown: GrownDays = field(default_factory=lambda: {BRONZE: {}, QUARANTINE: {}})
    """When each local day got rows last, in seconds since the epoch, by the table."""
    _samples: Samples = field(default_factory=Samples, repr=False)
    _recent: deque[tuple[float, int, Floats]] = field(default_factory=lambda: deque(maxlen=400), repr=False)
    _applied: dict[str, deque[tuple[float, Floats]]] = field(default_factory=dict, repr=False)

    def recently_grown(self, now: float | None = None) -> GrownDays:
        """Returns `grown`, without the days that got no rows for a day. Their growth has been reported long ago."""
        since = (time.time() if now is None else now) - _GROWN_SECONDS
        return {table: {day: at for day, at in dict(days).items() if at >= since} for table, days in self.grown.items()}

    def note(self, part: str, error: str | None) -> None:
        """Records the error of one part of the stream, or None once that part works again."""
        if error:
            self.errors[part] = error
        else:
            self.errors.pop(part, None)

    def record_commit(
        self, times: pl.Series, rejected: int, now: float | None = None, arrivals: pl.Series | None = None
    ) -> None:
        """Counts a batch that is in bronze.

        `times` are its event times, `rejected` the number of its rejected messages, and `arrivals` the times at which
        those arrived (now, where they are not given). `now` is in seconds since the epoch.
        """
        now = time.time() if now is None else now
        if rejected:
            moments = pl.Series([datetime.fromtimestamp(now, UTC)]) if arrivals is None else arrivals
            self.grown[QUARANTINE] |= {str(day): now for day in local_days(moments, self.timezone)}
        self.rows += len(times)
        self.grown[BRONZE] |= {str(day): now for day in local_days(times, self.timezone)}
        self.quarantined += rejected
        self._recent.append((now, len(times) + rejected, _ages_ms(times, now)))

    def record_applied(self, sink: str, times: pl.Series, now: float | None = None) -> None:
        """Records that a sink has applied a batch; `times` are its event times."""
        now = time.time() if now is None else now
        self._applied.setdefault(sink, deque(maxlen=400)).append((now, _ages_ms(times, now)))

    def events_per_second(self, now: float | None = None) -> float:
        """Returns the rate of events, rejected ones included, over the last ten seconds."""
        recent = self._recent_entries(now)
        return round(sum(count for _, count, _ in recent) / _HORIZON, 1)

    def p95_ms(self, now: float | None = None) -> float | None:
        """Returns the 95th percentile of the time from an event to its bronze commit, in milliseconds."""
        return _p95([sample for _, _, sample in self._recent_entries(now)])

    def sinks_p95_ms(self, now: float | None = None) -> dict[str, float | None]:
        """Returns the 95th percentile of the time from an event to each sink, in milliseconds.

        It covers only batches that the sink did not read back from bronze.
        """
        since = (time.time() if now is None else now) - _HORIZON
        return {
            sink: _p95([ages for at, ages in list(applied) if at >= since])
            for sink, applied in sorted(self._applied.items())
        }

    def summary(self, now: float | None = None) -> StreamSummary:
        """Returns the report as JSON values, for the report file."""
        self._samples.add(time.time() if now is None else now, self.rows + self.quarantined)
        return {
            "topic": self.topic,
            "rows": self.rows,
            "quarantined": self.quarantined,
            "late": self.late,
            "too_late": self.too_late,
            "lag": self.lag,
            "events_per_second": self.events_per_second(now),
            "p95_ms": self.p95_ms(now),
            "sinks_behind": dict(self.sinks),
            "sinks_p95_ms": self.sinks_p95_ms(now),
            "samples": {"of": self._samples.content()},
            "last_error": "; ".join(list(self.errors.values())) or None,
        }

    def _recent_entries(self, now: float | None) -> list[tuple[float, int, Floats]]:
        since = (time.time() if now is None else now) - _HORIZON
        return [entry for entry in list(self._recent) if entry[0] >= since]


def _ages_ms(times: pl.Series, now: float) -> Floats:
    """Returns the ages of a sample of the events at `now` (seconds since the epoch), in milliseconds."""
    sample = times.gather_every(max(1, len(times) // _SAMPLE)).dt.epoch("us").to_numpy()
    return now * 1000 - sample / 1000


def _p95(samples: list[Floats]) -> float | None:
    ages = np.concatenate(samples) if samples else np.empty(0)
    return round(float(np.quantile(ages, 0.95)), 1) if ages.size else None


def local_days(times: pl.Series, timezone: str) -> set[date]:
    """Returns the local days of some times.

    Nearly always all times are of one day. A comparison of the first and the last time detects this case cheaply.
    """
    if not len(times):
        return set()
    ends = pl.Series([times.min(), times.max()]).dt.convert_time_zone(timezone).dt.date().unique()
    return set(ends if len(ends) == 1 else times.dt.convert_time_zone(timezone).dt.date().unique())
