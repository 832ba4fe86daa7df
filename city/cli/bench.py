"""city bench: measurements against a peer in the same run."""

import json
from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="ingest, latency or crash")],
    as_json: Annotated[bool, typer.Option("--json", help="only the JSON line")] = False,
) -> None:
    """Run a benchmark of benchmarks/ on servers of its own, and print one JSON line."""
    import sys

    from benchmarks import known, load

    if name not in known():
        raise ValueError(f"no benchmark {name!r}; known: {', '.join(known())}")
    tell = (lambda text: None) if as_json else (lambda text: print(text, file=sys.stderr))
    print(json.dumps(load(name).run(tell)))
