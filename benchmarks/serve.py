"""Our `/predict`, with a key, validation and the prediction store, against `mlflow models serve` of the same forest:
sixteen connections, the same machine, in turns in one run."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import requests

from city.features.online import online_store, push
from city.models.exported import export
from city.models.model import Model
from city.models.registry import Registry
from city.settings import Settings
from city.stack.embedded import environment, free_ports, settings_at
from city.web.keys import Keys
from city_assets.traffic.models import CONGESTION

CONNECTIONS, SECONDS, ROUNDS = 16, 10.0, 3
ROWS, BODIES, CELLS = 4_000, 20_000, 500
_READY_SECONDS = 90


def forest() -> Model:
    """Traffic's congestion, by a forest of a hundred trees."""
    from sklearn.ensemble import RandomForestClassifier

    def estimator(_: Any) -> Any:
        return RandomForestClassifier(100, n_jobs=1, random_state=0)

    return replace(CONGESTION, name="forest", estimator=estimator, space=None)


def run(
    tell: Callable[[str], None], seconds: float = SECONDS, rounds: int = ROUNDS, peer: bool = True
) -> dict[str, Any]:
    model = forest()
    with tempfile.TemporaryDirectory() as folder:
        config = settings_at(Path(folder) / "home", Path(folder), auth="on", max_body_mb=1.0)
        config.home.mkdir()
        rows = drawn(ROWS)
        fitted = model.estimator({}).fit(rows, level(rows))
        register(config, model, fitted, rows)
        push(online_store(config), model.view, of_cells(rows[:CELLS]))
        key = Keys(config).add("bench", "client")
        asks = drawn(BODIES, seed=1)
        bodies: dict[str, list[dict[str, Any]]] = {
            "features": [{"model_name": model.name, "features": features(model, row)} for row in asks],
            "entity": [{"model_name": model.name, "entity": {"cell": f"c{n}"}} for n in range(CELLS)],
            "mlflow": [
                {"dataframe_split": {"columns": [*model.inputs], "data": [row.tolist()]}} for row in asks[:2000]
            ],
        }
        files = {
            name: _written(Path(folder) / name, "/invocations" if name == "mlflow" else "/predict", of, key)
            for name, of in bodies.items()
        }
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
        with contextlib.ExitStack() as servers:
            theirs = servers.enter_context(_mlflow(Path(folder), model, fitted)) if peer else None
            ours = servers.enter_context(serving(config, [sys.executable, "-m", "benchmarks._serve_ours"]))
            if theirs is not None:
                _agree(config.serve_port, theirs, key, bodies)
            for number in range(rounds):
                for name, file in files.items():
                    port = theirs if name == "mlflow" else ours
                    if port is not None:
                        runs[name].append(load(port, file, seconds))
                        tell(f"round {number + 1}, {name}: {runs[name][-1]}")
        recorded = pl.scan_delta(str(config.lake / "served" / model.name)).select(pl.len()).collect().item()
    figures: dict[str, Any] = {"bench": "serve", "connections": CONNECTIONS, "rounds": rounds}
    for name, of in runs.items():
        if of:
            prefix = "" if name == "features" else f"{name}_"
            figures |= {
                f"{prefix}{figure}": round(median(r[figure] for r in of), 2) for figure in ("rps", "p50_ms", "p99_ms")
            }
            figures[f"{prefix}failed"] = sum(r["failed"] for r in of)
    if peer:
        figures["ratio"] = round(figures["rps"] / figures["mlflow_rps"], 1)
        figures["entity_ratio"] = round(figures["entity_rps"] / figures["mlflow_rps"], 1)
    return figures | {"recorded": recorded}


def drawn(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Inputs (n, inputs) as traffic has them, no two alike."""
    chance = np.random.default_rng(seed)
    rows = chance.normal(18, 6, (count, len(CONGESTION.inputs))).clip(0, 60)
    for place, name in enumerate(CONGESTION.inputs):
        kind = CONGESTION.view.features[name].kind
        if kind == "integer":
            rows[:, place] = rows[:, place].round()
        elif kind == "boolean":
            rows[:, place] = rows[:, place] > 18
    return rows.astype(np.float32)


def level(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Classes that a forest has something to learn of: from the mean of some speeds, with noise."""
    noise = np.random.default_rng(2).normal(0, 1, len(rows))
    return np.digitize(rows[:, :6].mean(1) + noise, [16, 20])


def features(model: Model, row: np.ndarray[Any, Any]) -> dict[str, Any]:
    kinds = [model.view.features[name].kind for name in model.inputs]
    as_json: dict[str, Callable[[float], Any]] = {"integer": int, "boolean": bool}
    return {name: as_json.get(kind, float)(value) for name, kind, value in zip(model.inputs, kinds, row, strict=True)}


def of_cells(rows: np.ndarray[Any, Any]) -> pl.DataFrame:
    """The view's rows of some cells, of now."""
    view = CONGESTION.view
    frame = pl.DataFrame([features(CONGESTION, row) for row in rows])
    others = [pl.lit(None, pl.Float64).alias(name) for name in view.features if name not in frame.columns]
    return frame.with_columns(
        *others,
        pl.format("c{}", pl.int_range(pl.len())).alias("cell"),
        pl.lit(datetime.now(UTC) + timedelta(minutes=30)).alias(view.time),
    )


def register(config: Settings, model: Model, fitted: Any, rows: np.ndarray[Any, Any]) -> int:
    """A version, made champion; its number."""
    registry = Registry(config)
    version = registry.add(
        model,
        export(model, fitted, rows[:500]),
        parameters={},
        metrics={},
        tags={"trained_at": datetime.now(UTC).isoformat()},
        card="# of a benchmark",
        example=rows[:2],
        figures={},
    )
    registry.promote(version, "for the benchmark")
    return version.number


@contextlib.contextmanager
def serving(config: Settings, argv: list[str]) -> Iterator[int]:
    """Our server, as a process; its port. Ends it as Ctrl-C does, and fails where it does not end well."""
    config.logs.mkdir(parents=True, exist_ok=True)
    log = config.logs / "serve.log"
    with log.open("ab") as output:
        process = subprocess.Popen(argv, env=os.environ | environment(config), stdout=output, stderr=output)
    try:
        _await(f"http://127.0.0.1:{config.serve_port}/health/ready", process, log)
        yield config.serve_port
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _mlflow(folder: Path, model: Model, fitted: Any) -> Iterator[int]:
    import mlflow

    path, port, log = folder / "theirs", free_ports(1)[0], folder / "mlflow.log"
    mlflow.sklearn.save_model(fitted, path, serialization_format="cloudpickle", pip_requirements=["scikit-learn"])
    command = ["-m", "mlflow", "models", "serve", "-m", str(path), "-p", str(port), "-h", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command, "--env-manager", "local"],
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await(f"http://127.0.0.1:{port}/ping", process, log)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=2).ok:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{url} does not answer: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)


def load(port: int, file: Path, seconds: float, connections: int = CONNECTIONS) -> dict[str, Any]:
    argv = [sys.executable, "-m", "benchmarks._load", str(port), str(file), str(seconds), str(connections)]
    figures: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return figures


def _written(path: Path, route: str, bodies: list[dict[str, Any]], key: str) -> Path:
    with path.open("wb") as file:
        for body in bodies:
            content = json.dumps(body).encode()
            head = (
                f"POST {route} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"X-API-Key: {key}\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            request = head.encode() + content
            file.write(len(request).to_bytes(4, "big") + request)
    return path


def _agree(ours: int, theirs: int, key: str, bodies: dict[str, list[dict[str, Any]]]) -> None:
    """Both say the same of the same rows; else the comparison would be of two different things."""
    classes = CONGESTION.label.classes
    for mine, other in list(zip(bodies["features"], bodies["mlflow"], strict=False))[:50]:
        said = requests.post(f"http://127.0.0.1:{ours}/predict", json=mine, headers={"X-API-Key": key}, timeout=10)
        answered = requests.post(f"http://127.0.0.1:{theirs}/invocations", json=other, timeout=10)
        if said.json()["prediction"] != classes[answered.json()["predictions"][0]]:
            raise RuntimeError(f"the two servers disagree: {said.text} and {answered.text}")
