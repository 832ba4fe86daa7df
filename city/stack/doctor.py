"""Checks whether this machine can run the platform, and names the fix where it cannot."""

import shutil
import subprocess
import sys
from dataclasses import dataclass

import psutil

from city.java import java
from city.java.jars import missing
from city.settings import Settings
from city.stack.part import can_bind, listener
from city.stack.specs import specs
from city.stack.state import SUPERVISOR, is_alive, leftovers, read_json
from city.stack.unknown_settings import unknown_settings

_MEMORY_GB, _DISK_GB = 3, 2


@dataclass(frozen=True)
class Finding:
    """The result of one check: `what` was checked, whether it is `ok`, the `actual` value, and the `fix`."""

    what: str
    ok: bool
    actual: str
    fix: str = ""


def examine(config: Settings) -> list[Finding]:
    """Returns one finding for each thing that `city up` needs."""
    free = psutil.virtual_memory().available / 1e9
    config.home.mkdir(parents=True, exist_ok=True)
    disk = shutil.disk_usage(config.home).free / 1e9
    runtime = subprocess.run([java(), "-version"], capture_output=True, text=True)
    absent = missing(config, ["kafka", "questdb"])
    python = ".".join(map(str, sys.version_info[:3]))
    return [
        Finding("Python", sys.version_info >= (3, 11), python, "install Python 3.11 or later"),
        Finding(
            "Java", runtime.returncode == 0, runtime.stderr.partition("\n")[0], "run `make up` again: it brings one"
        ),
        Finding(
            "jars", True, f"{len(absent)} to be fetched by `city up`" if absent else "all in the cache, hashes right"
        ),
        Finding(
            "memory", free > _MEMORY_GB, f"{free:.1f} GB free", f"some {_MEMORY_GB} GB are needed: close something"
        ),
        Finding("disk", disk > _DISK_GB, f"{disk:.1f} GB free at {config.home}", "free some, or set CITY_HOME"),
        *(
            Finding(f"setting {name}", False, "there is no such setting", f"did you mean {meant}?")
            for name, meant in unknown_settings().items()
            if meant  # another program's names may begin with CITY_ too
        ),
        *_check_ports(config),
    ]


def _check_ports(config: Settings) -> list[Finding]:
    state = read_json(config, SUPERVISOR)
    if state and is_alive(state["pid"], state["created"]):
        return [Finding("ports", True, "in use by the platform, which is up")]
    if processes := leftovers(config):
        remains = ", ".join(f"{name} (pid {pid})" for name, pid in processes.items())
        return [
            Finding(
                "ports", True, f"in use by processes of a killed `city up`, which the next `city up` ends: {remains}"
            )
        ]
    return [
        Finding(
            f"port {port}",
            can_bind(host, port),
            listener(port) or "free",
            f"stop that, or set {setting} to a free port",
        )
        for spec in specs(config)
        for setting, host, port in spec.bindings
    ]
