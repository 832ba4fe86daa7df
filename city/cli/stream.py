"""city stream: runs the hot path without Dagster. `city up` starts it."""

from typing import Annotated

import typer


def command(
    domain: Annotated[str | None, typer.Argument(help="such as traffic; by default all active ones")] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="stop the stream that runs, and take its place")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="wait for the end of a stream that runs")] = False,
) -> None:
    """Stream the topics of a domain, or of all active ones, into bronze and its sinks until interrupted."""
    from city.lake.native_imports import refuse_pyarrow

    refuse_pyarrow()
    import logging
    import signal

    from city.contracts.registry import domain_of, streamed
    from city.settings import settings
    from city.streaming.runner import StreamRunner

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s - %(message)s")
    config = settings()
    contracts = streamed(config)
    if domain is not None:
        contracts = [contract for contract in domain_of(domain).contracts if contract.rate == "high"]
    runner = StreamRunner(contracts, config)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: runner.stop())
    if wait:
        runner.run_in_turn()
    else:
        runner.run(take_over)
