"""city stream: runs the hot path of one domain without Dagster."""

from typing import Annotated

import typer


def command(
    domain: Annotated[str, typer.Argument(help="such as traffic")],
    take_over: Annotated[
        bool, typer.Option("--take-over", help="stop the stream that runs, and take its place")
    ] = False,
) -> None:
    """Stream a domain's topics into bronze and its sinks until interrupted."""
    import logging
    import signal

    from city.contracts.registry import domain_of
    from city.settings import settings
    from city.stack.part import CannotStart
    from city.stack.state import STREAM, process_of, read_json
    from city.streaming.job import StreamJob

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s - %(message)s")
    contracts = [contract for contract in domain_of(domain).contracts if contract.rate == "high"]
    config = settings()
    if not take_over and (process := process_of(read_json(config, STREAM))) is not None:
        raise CannotStart(
            f"a stream runs already (pid {process.pid}): end it first, that of a running city by `city down`. Or use "
            "--take-over: then the other one stops, with all its domains"
        )
    job = StreamJob(contracts, config)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: job.stop.set())
    job.run()
