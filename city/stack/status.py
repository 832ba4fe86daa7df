"""What `city status` says, from the files under <home>/run and the Delta logs; it asks no server anything."""

import time
from typing import Any

import psutil

from city.contracts.registry import domains
from city.lake import bronze_path, quarantine_path, row_count
from city.settings import Settings
from city.stack.state import SUPERVISOR, is_alive, read_json

_FRESH_SECONDS = 15.0


def status(config: Settings) -> dict[str, Any]:
    """`parts` (name → address, state, events_per_second, lag, p95_ms, last_error), `bronze_rows`, `quarantined`."""
    contracts = [c for d in domains(config) if config.is_active(d.name) for c in d.contracts]
    return {
        "parts": parts(config),
        "bronze_rows": {c.topic: row_count(bronze_path(config.lake, c)) for c in contracts},
        "quarantined": {c.topic: row_count(quarantine_path(config.lake, c)) for c in contracts},
    }


def parts(config: Settings) -> dict[str, dict[str, Any]]:
    """The parts of a running platform, none of one that is down, and the stream, whoever runs it."""
    supervisor = read_json(config, SUPERVISOR)
    up = supervisor is not None and is_alive(supervisor["pid"], supervisor["created"])
    found = {}
    for name, part in (supervisor or {"parts": {}})["parts"].items():
        beat = read_json(config, f"{name}.json") or {}
        fresh = up and time.time() - beat.get("at", 0) < _FRESH_SECONDS
        found[name] = {
            "address": part["address"],
            "state": part["state"] if up else "down",
            "events_per_second": beat.get("events_per_second") if fresh else None,
            "lag": beat.get("lag") if fresh else None,
            "p95_ms": None,
            "last_error": part["last_error"] or (beat.get("last_error") if fresh else None),
        }
        for loop, address in part.get("loops", {}).items():
            found[loop] = _loop(config, loop, address, found[name]["state"])
    stream = stream_part(config, up)
    return found | ({"stream": stream} if stream else {})


def _loop(config: Settings, name: str, address: str, state: str) -> dict[str, Any]:
    """A loop inside a part, by its own heartbeat: it runs while that is fresh, and with its part otherwise."""
    beat = read_json(config, f"{name}.json")
    fresh = beat is not None and state == "running" and time.time() - beat["at"] < _FRESH_SECONDS
    return {
        "address": address,
        "state": "running" if fresh else "restarting" if state == "running" else state,
        "events_per_second": beat["events_per_second"] if beat and fresh else None,
        "lag": None,
        "p95_ms": None,
        "last_error": beat["last_error"] if beat and fresh else None,
    }


def stream_part(config: Settings, up: bool) -> dict[str, Any] | None:
    """The streaming job, by its own report; None when it never ran and nothing would start it."""
    report = read_json(config, "stream.json")
    if report is None and not up:
        return None
    running = report is not None and not report["ended"] and is_running(report)
    streams = report["streams"] if report and running else []
    errors = [f"{s['topic']}: {s['last_error']}" for s in streams if s["last_error"]]
    if report and not running and report["failure"]:
        errors.append(report["failure"])
    latencies = [s["p95_ms"] for s in streams if s["p95_ms"] is not None]
    ended = report is not None and not running
    return {
        "address": f"{config.kafka} → {config.lake}",
        "state": "running" if running else ("restarting" if ended else "starting") if up else "down",
        "events_per_second": round(sum(s["events_per_second"] for s in streams), 1) if streams else None,
        "lag": sum(s["lag"] for s in streams) if streams else None,
        "p95_ms": max(latencies, default=None),
        "last_error": "; ".join(errors) or None,
        "streams": {s["topic"]: s for s in streams},
    }


def is_running(report: dict[str, Any]) -> bool:
    """Whether the process that wrote a stream's report still lives and writes."""
    return time.time() - report["at"] < _FRESH_SECONDS and psutil.pid_exists(report["pid"])
