"""Checks the logins of servers that the city uses and does not start."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from city.lake.location import cold_location
from city.settings import Settings
from city.stack.part import CannotStart


def check_logins(config: Settings) -> None:
    """Asks each external server once. One that is away is waited for later, as after a restart.

    Raises CannotStart that names each server which refuses the login, and the setting that mends it.
    """
    asked: list[Callable[[], str | None]] = [
        server.refusal
        for address, server in (
            (config.kafka_address, config.kafka),
            (config.questdb_address, config.questdb),
            (config.mqtt_address, config.mqtt),
        )
        if address is not None
    ]
    if config.is_cold_on_s3:
        asked.append(cold_location(config).refusal)
    if not asked:
        return
    with ThreadPoolExecutor(len(asked)) as pool:
        refusals = [told for told in pool.map(lambda ask: ask(), asked) if told is not None]
    if refusals:
        raise CannotStart("; ".join(refusals))
