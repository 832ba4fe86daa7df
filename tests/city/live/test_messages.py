"""What the hub sends is what `city.live.messages` declares."""

import json
import time
from datetime import UTC, datetime

import orjson

from city.live.hub import _encode
from city.live.messages import STREAM_MESSAGE, Score, ScoreFeed
from city.live.reader import FEED, Delta, State
from city_assets.traffic.live import CELLS

CELL = "882a100d2dfffff"


def test_a_snapshot_and_a_delta_are_as_declared() -> None:
    now = time.time() * 1000
    state = State(CELLS)
    window = {"cell": CELL, "window_start": datetime.now(UTC).isoformat(), "vehicle_count": 3, "speed_mean": 9.5}
    state.take(CELLS.row(window), now)
    state.gone.add("882a100d2bfffff")
    scores = orjson.dumps(ScoreFeed(rows=[Score(model="fraud", id="1", timestamp="now")]))
    for kind, rows in (("snapshot", state.snapshot()), ("delta", state.delta())):
        assert rows is not None
        text = _encode(kind, "a1", Delta(7, int(now), {"cells": rows, FEED: scores}), None)
        message = STREAM_MESSAGE.validate_json(text)
        assert message["type"] == kind
        assert json.loads(STREAM_MESSAGE.dump_json(message)) == json.loads(text), "nothing is undeclared"
