"""Runs servers for the duration of a block, on free ports and in a folder of their own: for tests and benchmarks."""

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from city.java import jars
from city.settings import Settings
from city.stack import servers
from city.stack.part import Part, can_bind, last_line

_SECONDS = 120  # of a JVM that starts beside others on two cores
_SPECS = {"kafka": servers.kafka, "questdb": servers.questdb, "mqtt": servers.mqtt}
_PORTS = (
    "kafka_port",
    "kafka_controller_port",
    "questdb_http_port",
    "questdb_pg_port",
    "mqtt_port",
    "dagster_port",
    "serve_port",
)


def settings_at(home: Path, cache: Path, **changes: object) -> Settings:
    """Creates settings with `home` as the state folder, free ports, the jars of `cache`, and no history."""
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    return Settings(_env_file=None, home=home, cache=cache, **({"history_days": 0} | ports | changes))  # type: ignore[arg-type]


def environment(config: Settings) -> dict[str, str]:
    """Returns the environment variables that give another process these settings."""
    import json

    def reveal(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: reveal(inner) for name, inner in value.items()}
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    changed = config.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    revealed = reveal({name: getattr(config, name) for name in changed})
    changed |= {name: revealed[name] for name in changed if _has_secret(getattr(config, name))}
    return {
        f"CITY_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in changed.items()
    }


def _has_secret(value: Any) -> bool:
    return isinstance(value, SecretStr) or (isinstance(value, dict) and any(map(_has_secret, value.values())))


@contextlib.contextmanager
def running(config: Settings, *names: str) -> Iterator[dict[str, Part]]:
    """Starts the named servers, waits until they are ready, and stops them at the end of the block."""
    jars.fetch(config, jars.missing(config, [name for name in names if name in jars.ROOTS]))
    parts = {name: Part(_SPECS[name](config), config.logs) for name in names}
    try:
        for part in parts.values():
            part.start()
        for part in parts.values():
            await_running(part)
        yield parts
    finally:
        for part in parts.values():
            part.signal()
        for part in parts.values():
            part.await_stop()


def await_running(part: Part, seconds: float = _SECONDS) -> None:
    """Waits until the part runs. Raises TimeoutError with the end of the part's log."""
    deadline = time.monotonic() + seconds
    while part.state != "running":
        part.watch()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{part.spec.name} was not ready after {seconds:g} s: {last_line(part.log)}")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Returns ports on which no process listens now, below the ephemeral range.

    In the ephemeral range a client that retries while its server is down may get the server's port for its own end, and
    then connects to itself.
    """
    candidates = random.sample(range(15_000, 32_000), 20 * count)
    return [port for port in candidates if can_bind("127.0.0.1", port)][:count]
