"""city simulate: runs simulators of domains in one process."""

from typing import Annotated

import typer

from simulators.faults import DEFAULT_FAULTS


def command(
    domain: Annotated[list[str], typer.Argument(help="such as traffic; several may be given")],
    rate: Annotated[float | None, typer.Option(help="events a second of each", min=0.1)] = None,
    faults: Annotated[
        float, typer.Option(help="faults and incidents: 0 for none, 1 for a bad day", min=0.0, max=10.0)
    ] = DEFAULT_FAULTS,
    seed: Annotated[int, typer.Option(help="the same seed makes the same sources and faults")] = 0,
) -> None:
    """Send simulated events of the domains until interrupted."""
    import logging
    import signal
    import threading
    from functools import partial

    from city.contracts.registry import domain_of
    from city.settings import settings
    from simulators import together

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s - %(message)s")
    config, makers = settings(), {}
    for name in domain:
        module = domain_of(name).simulator()
        if module is None:
            raise ValueError(f"there is no simulator for {name}: add simulators/{name}.py")
        makers[name] = partial(module.Simulator, config, rate or module.DEFAULT_RATE, faults, seed)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    together.prepare(config, stop)
    together.run(makers, config, stop)
