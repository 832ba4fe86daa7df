"""city bench: runs a benchmark, which measures against a peer in the same run or against published figures."""

import json
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="ingest, latency, crash, batch, features, metr-la, rul, …")],
    as_json: Annotated[bool, typer.Option("--json", help="only the JSON line")] = False,
    data: Annotated[Path | None, typer.Option(help="a folder of runs or months, where one is taken")] = None,
) -> None:
    """Run a benchmark of benchmarks/, on its own servers if it needs some, and print one JSON line."""
    import inspect
    import signal
    import sys

    from benchmarks import known, load

    if name not in known():
        raise ValueError(f"no benchmark {name!r}; known: {', '.join(known())}")
    run = load(name).run
    if data is not None and "data" not in inspect.signature(run).parameters:
        raise ValueError(f"the benchmark {name!r} takes no --data")
    signal.signal(signal.SIGTERM, _exit)
    log = (lambda text: None) if as_json else (lambda text: print(text, file=sys.stderr))
    print(json.dumps(run(log) if data is None else run(log, data=data)))


def _exit(number: int, frame: FrameType | None) -> None:
    """Ends the command so that `finally` blocks run, which stop the benchmark's servers."""
    raise SystemExit(128 + number)
