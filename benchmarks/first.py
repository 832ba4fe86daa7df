"""The first minutes of a new city: `city up` in an empty home with a warm cache, until its models predict; and a second
start of the same city."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from city.models.model import models
from city.models.registry import Registry
from city.settings import Settings, settings
from city.stack.embedded import environment, settings_at
from city.stack.history_plan import RECORD, load_plan
from city.stack.history_progress import read
from city.tables.registry import is_live
from city_assets.history import steps

LIMIT_SECONDS = 900.0
_POLL_SECONDS = 0.25
_JUDGES = ("drift reference ", "quality ", "model ")


def run(report: Callable[[str], None]) -> dict[str, Any]:
    """Seconds from the start of `city up` to the first live event in the API, to the history in bronze, silver, gold
    and features, to a champion of every declared model, and to predictions on the map. Then those of a second start."""
    with tempfile.TemporaryDirectory(prefix="city-first-") as folder:
        days = Settings.model_fields["history_days"].default
        config = settings_at(Path(folder), settings().cache_folder, history_days=days)
        with _up(config) as began:
            figures = _first_start(config, began, report)
        record = (config.home / RECORD).read_text()
        with _up(config) as began:
            figures["second_live_s"] = _until(lambda: _has_live_vehicle(config, began), began)
            report(f"second start: live after {figures['second_live_s']} s")
            time.sleep(10)
            figures["second_makes_history"] = (config.home / RECORD).read_text() != record
        return {"bench": "first", "history_days": config.history_days, "cores": os.cpu_count(), **figures}


def _first_start(config: Settings, began: float, report: Callable[[str], None]) -> dict[str, Any]:
    waits: dict[str, Callable[[], Any]] = {
        "live_s": lambda: _has_live_vehicle(config, began),
        "history_s": lambda: _has_tables(config),
        "ahead_s": lambda: any(
            cell.get("speed_15") is not None for cell in _get(config, "/api/predictions?minutes=15").get("cells", ())
        ),
        "champions_s": lambda: len(_champions(config)) == len(_live_models()),
    }
    figures: dict[str, Any] = {}
    while waits:
        for name, is_there in list(waits.items()):
            if is_there():
                figures[name] = round(time.monotonic() - began, 1)
                report(f"{name}: {figures[name]}")
                del waits[name]
        progress = read(config)
        is_over = progress is not None and progress.is_finished and time.monotonic() - began > 420
        if is_over or time.monotonic() - began > LIMIT_SECONDS:
            figures |= dict.fromkeys(waits)
            break
        time.sleep(_POLL_SECONDS)
    champions = _champions(config)
    figures["models"] = {name: _margin(name, champions.get(name)) for name in _live_models()}
    return figures


def _margin(name: str, metrics: dict[str, float] | None) -> dict[str, Any] | None:
    """The measure of a champion and of the naive answer on held-out rows, and by how much the champion is better."""
    if metrics is None:
        return None
    measure = models()[name].measure
    ours, naive = metrics[f"model_{measure}"], metrics[f"naive_{measure}"]
    gain = round((naive - ours) / abs(naive), 4) if naive else None
    figures = {"measure": measure, "champion": round(ours, 4), "naive": round(naive, 4), "better_by": gain}
    precision = metrics.get("model_average_precision")
    return figures if precision is None else figures | {"average_precision": round(precision, 3)}


def _live_models() -> list[str]:
    """Returns the models that a new city trains: those of views that a stream fills."""
    return [name for name, model in models().items() if is_live(model.view.table)]


def _champions(config: Settings) -> dict[str, dict[str, float]]:
    registry = Registry(config)
    champions = {name: registry.at(name) for name in _live_models()}
    return {name: dict(version.metrics) for name, version in champions.items() if version is not None}


def _has_tables(config: Settings) -> bool:
    """Returns whether the history is in every table and in the online store. What judges it comes after these steps."""
    plan, path = load_plan(config), config.home / RECORD
    if plan is None or not path.exists():
        return False
    wanted = {step.name for step in steps(config, plan) if not step.name.startswith(_JUDGES)}
    return wanted <= set(json.loads(path.read_text()))


def _has_live_vehicle(config: Settings, began: float) -> bool:
    """Returns whether the API has a position from after the start. Older ones are read again from Kafka."""
    started_ms = (time.time() - (time.monotonic() - began)) * 1000
    return any(row["t"] >= started_ms for row in _get(config, "/api/live/vehicles").get("rows", ()))


def _get(config: Settings, path: str) -> dict[str, Any]:
    try:
        answer = requests.get(f"http://127.0.0.1:{config.serve_port}{path}", timeout=5)
        return answer.json() if answer.ok else {}
    except (requests.RequestException, ValueError):
        return {}


def _until(is_there: Callable[[], Any], began: float) -> float | None:
    while time.monotonic() - began < LIMIT_SECONDS:
        if is_there():
            return round(time.monotonic() - began, 1)
        time.sleep(_POLL_SECONDS)
    return None


@contextmanager
def _up(config: Settings) -> Iterator[float]:
    """Runs `city up`, from the moment that it yields (seconds of the monotonic clock), and stops it."""
    config.logs.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (config.logs / "up.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "city.cli.main", "up"],
            env=os.environ | environment(config),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield began
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
