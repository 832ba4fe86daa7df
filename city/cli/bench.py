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
    subset: Annotated[str | None, typer.Option(help="a part of the data, for the benchmarks that take one")] = None,
) -> None:
    """Run a benchmark of benchmarks/, on its own servers if it needs some, and print one JSON line."""
    import inspect
    import signal
    import sys

    from benchmarks import known, load

    if name not in known():
        raise ValueError(f"no benchmark {name!r}; known: {', '.join(known())}")
    run = load(name).run
    options = {option: value for option, value in (("data", data), ("subset", subset)) if value is not None}
    for option in options:
        if option not in inspect.signature(run).parameters:
            raise ValueError(f"the benchmark {name!r} takes no --{option}")
    signal.signal(signal.SIGTERM, _exit)
    log = (lambda text: None) if as_json else (lambda text: print(text, file=sys.stderr))
    print(json.dumps(run(log, **options)))


def _exit(number: int, frame: FrameType | None) -> None:
    """Ends the command so that `finally` blocks run, which stop the benchmark's servers."""
    raise SystemExit(128 + number)
