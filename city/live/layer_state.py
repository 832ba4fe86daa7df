"""The rows of a layer of the live city, and their changes since the last delta."""

from collections.abc import Sequence

import orjson

from city.live.layers import Layer
from city.live.messages import LayerDelta, LayerSnapshot, Row

Prediction = float | str | None


class State:
    """The rows of a layer, by key, and the keys that were changed or removed since the last delta."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.rows: dict[str, Row] = {}
        self.changed: set[str] = set()
        self.gone: set[str] = set()
        self._settling: dict[str, Row] = {}
        """Rows of windows that have not been open for long enough."""
        self._ttl_ms = layer.ttl.total_seconds() * 1000
        self._settle_ms = layer.settle.total_seconds() * 1000

    def take(self, row: Row, now_ms: float) -> None:
        """Stores a row. A row that is older than the present one of its key, or than the time to live, is ignored."""
        key, at = row[0], row[1]
        current = self.rows.get(key)
        if now_ms - at > self._ttl_ms or (current is not None and at < current[1]):
            return
        if self._settle_ms and current is not None and at > current[1] and now_ms - at < self._settle_ms:
            self._settling[key] = row
            return
        if current is not None:
            row[self.layer.first_prediction :] = current[self.layer.first_prediction :]
        self.rows[key] = row
        self.changed.add(key)
        self.gone.discard(key)

    def pass_time(self, now_ms: float) -> None:
        """Stores the rows of windows that have settled, and removes keys without messages."""
        for key in [k for k, row in self._settling.items() if now_ms - row[1] >= self._settle_ms]:
            self.take(self._settling.pop(key), now_ms)
        for key in [k for k, row in self.rows.items() if now_ms - row[1] > self._ttl_ms]:
            del self.rows[key]
            self.changed.discard(key)
            self.gone.add(key)

    def set_predictions(self, key: str, values: Sequence[Prediction]) -> None:
        """Replaces the predictions in the row of a key. `values` has one value per column of predictions."""
        row = self.rows.get(key)
        if row is not None and row[self.layer.first_prediction :] != list(values):
            self.rows[key] = [*row[: self.layer.first_prediction], *values]
            self.changed.add(key)

    def delta(self) -> bytes | None:
        """The changes since the last delta, as JSON; None where there are none."""
        if not self.changed and not self.gone:
            return None
        changes = LayerDelta(rows=[self.rows[key] for key in self.changed], gone=list(self.gone))
        self.changed, self.gone = set(), set()
        return orjson.dumps(changes)

    def snapshot(self) -> bytes:
        """The columns and all rows, as JSON."""
        content = LayerSnapshot(columns=self.layer.header, means=self.layer.description, rows=list(self.rows.values()))
        return orjson.dumps(content)
