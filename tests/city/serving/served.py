"""A server for tests: the real one, in a thread, on a free port, with small models in a real registry."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import requests

from city.features.online import online_store, push
from city.models.anomaly import NormalRegion
from city.models.attribution import background
from city.models.conformal import Intervals
from city.models.examples import inputs
from city.models.exported import Calibration, export
from city.models.model import Model
from city.models.registry import Registry, Version
from city.server.app import server
from city.settings import Settings, settings
from city.stack.embedded import environment
from city_assets.traffic.models import CONGESTION, MODELS
from tests.city.models.rows import traffic

SPEED = replace(MODELS[-1], name="speed", space=None)
LEVEL = replace(CONGESTION, name="level", space=None)
ROWS = traffic(hours=4, cells=6)
FEATURES: dict[str, Any] = ROWS.drop_nulls().select(SPEED.inputs).row(0, named=True)


def taught(model: Model, seed: int = 0) -> bytes:
    """An exported model that was fitted on a few rows; of another seed it says something else."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    x = inputs(model, ROWS)
    speed = ROWS["speed_mean"].to_numpy() + np.random.default_rng(seed).normal(seed, 1, len(x))
    if model.kind == "regression":
        fitted = HistGradientBoostingRegressor(max_iter=5).fit(x, speed)
        intervals = Intervals(0.9, (15.0,), (2.0, 3.0))
        return export(model, fitted, x[:200], Calibration(intervals, background=background(x)))
    fitted = HistGradientBoostingClassifier(max_iter=5).fit(x, np.digitize(speed, [12, 22])[: len(x)])
    return export(model, fitted, x[:200], Calibration(background=background(x)))


def anything(model: Model, calibration: Calibration | None = None) -> bytes:
    """A model of any kind that was fitted on noise."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    chance = np.random.default_rng(0)
    x = chance.normal(20, 5, (300, len(model.inputs))).astype(np.float32)
    if model.kind == "anomaly":
        return export(model, NormalRegion(**model.defaults).fit(x), x)
    if model.kind == "regression":
        return export(model, HistGradientBoostingRegressor(max_iter=3).fit(x, x[:, 0]), x)
    classes = chance.integers(0, len(model.label.classes), len(x))
    return export(model, HistGradientBoostingClassifier(max_iter=3).fit(x, classes), x, calibration or Calibration())


def registered(registry: Registry, model: Model, content: bytes, champion: bool = True) -> Version:
    made = registry.add(
        model,
        content,
        parameters={},
        metrics={f"model_{model.measure}": 1.0, f"naive_{model.measure}": 2.0},
        tags={"trained_at": datetime.now(UTC).isoformat()},
        card=f"# {model.name}",
        example=np.zeros((1, len(model.inputs)), np.float32),
        figures={},
    )
    if champion:
        registry.promote(made, "told to")
    return made


def put_features(config: Settings, cell: str = "882a100d2dfffff") -> None:
    """A cell's features of now, in the online store."""
    row = (
        ROWS.drop_nulls()
        .head(1)
        .with_columns(cell=pl.lit(cell), as_of=pl.lit(datetime.now(UTC)), window_start=pl.lit(datetime.now(UTC)))
    )
    push(online_store(config), SPEED.view, row)


@contextlib.contextmanager
def serving(config: Settings, models: Sequence[Model] | None = None) -> Iterator[str]:
    """The server's address, once it is ready; ends as Ctrl-C ends it."""
    running = server(config, models)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{config.serve_port}"
    try:
        _await(url, thread.is_alive)
        yield url
    finally:
        running.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@contextlib.contextmanager
def process(config: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """The server as a process of its own, of SPEED, once it is ready; killed in the end, if it still runs."""
    config.logs.mkdir(parents=True, exist_ok=True)
    with (config.logs / "serve.log").open("ab") as log:
        argv = [sys.executable, "-m", "tests.city.serving.served"]
        running = subprocess.Popen(argv, env=os.environ | environment(config), stdout=log, stderr=log)
    try:
        _await(config.serve, lambda: running.poll() is None)
        yield running
    finally:
        running.kill()
        running.wait()


def _await(url: str, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while True:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{url}/health/ready", timeout=5).ok:
                return
        assert alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)


if __name__ == "__main__":
    server(settings(), [SPEED]).run()
