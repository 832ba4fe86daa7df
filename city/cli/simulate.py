"""city simulate: a domain's simulator."""

from typing import Annotated

import typer


def command(
    domain: Annotated[str, typer.Argument(help="such as traffic")],
    rate: Annotated[float | None, typer.Option(help="events a second", min=0.1)] = None,
    faults: Annotated[float, typer.Option(help="0 for none, 1 for a bad day", min=0.0, max=10.0)] = 0.2,
    seed: Annotated[int, typer.Option(help="the same seed makes the same sensors and faults")] = 0,
) -> None:
    """Send a domain's simulated events until interrupted."""
    import signal
    import threading

    from city.contracts.registry import domain_of
    from city.settings import settings

    module = domain_of(domain).simulator()
    if module is None:
        raise ValueError(f"there is no simulator for {domain}: add simulators/{domain}.py")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    module.Simulator(settings(), rate or module.DEFAULT_RATE, faults, seed).run(stop)
