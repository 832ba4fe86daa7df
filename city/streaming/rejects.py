"""Gathers rejects, so that the few rejects of many batches are committed together."""

import time

import polars as pl

from city.streaming.records import Batch, Offsets

_REJECTS = 1_000
"""The number of rejects that are committed at once, however long they have waited."""


class Rejects:
    """Gathers rejects that wait to be committed together."""

    def __init__(self, seconds: float) -> None:
        self.waiting: list[tuple[Batch, pl.DataFrame]] = []
        self.recorded: Offsets | None = None
        """The offsets of waiting rejects that bronze's log has recorded; None where they are not known."""
        self._seconds, self._began = seconds, 0.0
        self._again: Offsets = {}
        self._until: Offsets = {}

    def begin(self, resume: Offsets, position: Offsets) -> None:
        """Starts with no rejects. The ranges from `resume` to `position` are still to be read again."""
        self.waiting, self.recorded = [], None
        self._again = {p: at for p, at in resume.items() if at < position[p]}
        self._until = dict(position)

    def add(self, batch: Batch, rejects: pl.DataFrame) -> None:
        """Adds the rejects of a batch, and notes how far each partition has been read again."""
        for partition in self._again.keys() & batch.end.keys():
            self._again[partition] = batch.end[partition]
            if self._again[partition] >= self._until[partition]:
                del self._again[partition]
        if rejects.is_empty():
            return
        if not self.waiting:
            self._began = time.monotonic()
        self.waiting.append((batch, rejects))

    def are_due(self) -> bool:
        """Returns whether enough rejects wait, or have waited long enough."""
        rows = sum(rejects.height for _, rejects in self.waiting)
        return bool(self.waiting) and (rows >= _REJECTS or time.monotonic() - self._began >= self._seconds)

    def since(self) -> Offsets:
        """Returns, for each partition with waiting rejects, the first offset to commit or to read again."""
        starts: Offsets = {}
        for batch, _ in self.waiting:
            starts = batch.start | starts
        return self._again | starts

    def merged(self) -> tuple[Batch, pl.DataFrame]:
        """Returns the offset range of all waiting rejects (a batch without rows), and the rejects."""
        start: Offsets = {}
        end: Offsets = {}
        for batch, _ in self.waiting:
            start, end = batch.start | start, end | batch.end
        return Batch(self.waiting[0][0].rows.head(0), start, end), pl.concat([r for _, r in self.waiting])
