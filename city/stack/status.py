"""What `city status` says, from the files under <home>/run, the Delta logs and the heartbeats in Dagster's storage; it
asks no server anything, but PostgreSQL where that is Dagster's storage."""

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from city.contracts.registry import domains
from city.lake import STRAYS, bronze_path, locate, quarantine_path, row_count
from city.settings import Settings
from city.stack.daemon import CODE_SERVER, DAEMON, daemon_hangs
from city.stack.progress import NO_PROGRESS, stalled
from city.stack.state import SERVER, STREAM, SUPERVISOR, is_alive, process_of, read_json, stream_crashes
from city.stack.worker import complaints

FRESH_SECONDS = 15.0
"""A process that lives and has not reported for longer is said to make no progress."""


def status(config: Settings) -> dict[str, Any]:
    """`parts` (name → address, state, events_per_second, lag, p95_ms, last_error, stalled, workers, exit, errors),
    `bronze_rows`, `quarantined`, `alarm_channels`. `stalled`: it lives, and does not report, hangs, or has fallen
    silent. `last_error` is all that is to be said: `exit`, why its process has ended, for a minute after that;
    `errors`, what is wrong now.
    """
    contracts = [c for d in domains(config) if config.is_active(d.name) for c in d.contracts]
    quarantined = {c.topic: row_count(quarantine_path(config.lake, c)) for c in contracts}
    strays = row_count(locate(config.lake, "quarantine", STRAYS))
    return {
        "parts": parts(config),
        "bronze_rows": {c.topic: row_count(bronze_path(config.lake, c)) for c in contracts},
        "quarantined": quarantined | ({STRAYS: strays} if strays else {}),
        "alarm_channels": alarm_channels(config),
    }


def alarm_channels(config: Settings) -> dict[str, str]:
    """The channels that do not take the messages of alarms, with the reason, as the server that sends them has it."""
    beat = read_json(config, SERVER) or {}
    return beat.get("alarm_channels", {}) if process_of(beat) is not None else {}


def parts(config: Settings) -> dict[str, dict[str, Any]]:
    """The parts of a running platform, none of one that is down; the stream and other sources, whoever runs them."""
    supervisor = read_json(config, SUPERVISOR)
    up = supervisor is not None and is_alive(supervisor["pid"], supervisor["created"])
    silent = silent_sources(config)
    found = {}
    for name, part in (supervisor or {"parts": {}})["parts"].items():
        beat = (read_json(config, f"{name}.json") or {}) if up else {}
        fresh = time.time() - beat.get("at", 0) < FRESH_SECONDS
        workers = beat.get("workers", [])
        errors = [beat.get("last_error") if fresh else None, silent.get(name)]
        is_mute = bool(beat) and not fresh and beat.get("pid") == part["pid"]
        if is_mute:
            errors.append(_no_report(beat))
        errors += [f"{worker}: {text}" for worker, text in complaints(workers, time.time()).items()] if fresh else []
        is_watched = name == DAEMON and up and part["state"] == "running"
        hangs = daemon_hangs(config, part["created"]) if is_watched else None
        errors.append(hangs)
        found[name] = {
            "address": part["address"],
            "state": part["state"] if up else "down",
            "restarts": part.get("restarts", 0),
            "events_per_second": beat.get("events_per_second") if fresh else None,
            "lag": beat.get("lag") if fresh else None,
            "p95_ms": None,
            "last_error": _joined([part["last_error"], *errors]),
            "exit": part["last_error"],
            "errors": _distinct(errors),
            "stalled": is_mute or name in silent or hangs is not None,
            "workers": workers if fresh else [],
        }
        for loop, address in part.get("loops", {}).items():
            of_loop = _loop(config, loop, address, found[name]["state"], silent.get(loop), part["pid"])
            found[loop] = of_loop | {"within": name}
    stream = stream_part(config, up, silent)
    return found | _unsupervised(config, found.keys(), silent) | ({"stream": stream} if stream else {})


def _unsupervised(config: Settings, known: Collection[str], silent: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The processes with a heartbeat that no supervisor started: a bridge or a simulator that somebody runs by hand."""
    found = {}
    for path in sorted(config.run.glob("*.json")):
        beat = read_json(config, path.name) or {}
        if path.stem not in known and beat.get("samples") and process_of(beat) is not None:
            found[path.stem] = _loop(config, path.stem, "", "running", silent.get(path.stem), beat["pid"])
    return found


def _loop(config: Settings, name: str, address: str, state: str, silent: str | None, pid: int | None) -> dict[str, Any]:
    """A loop inside a part, by its own heartbeat: it runs while that is fresh, makes no progress while the process
    `pid` that has written it lives, and is as its part otherwise. `silent` is why it is said to have fallen silent, if
    it has."""
    beat = read_json(config, f"{name}.json")
    quiet = time.time() - beat["at"] if beat is not None and state == "running" else None
    fresh = quiet is not None and quiet < FRESH_SECONDS
    is_mute = not fresh and quiet is not None and (process := process_of(beat)) is not None and process.pid == pid
    errors = [beat["last_error"] if beat and fresh else None, silent]
    errors.append(f"{NO_PROGRESS} {quiet:.0f} s" if is_mute else None)
    return {
        "address": address,
        "state": "running" if fresh or is_mute else "restarting" if state == "running" else state,
        "events_per_second": beat["events_per_second"] if beat and fresh else None,
        "lag": None,
        "p95_ms": None,
        "last_error": _joined(errors),
        "exit": None,
        "errors": _distinct(errors),
        "stalled": is_mute or silent is not None,
    }


def is_stopping(config: Settings) -> bool:
    """Whether the platform is being stopped."""
    return bool((read_json(config, SUPERVISOR) or {}).get("stopping"))


def stream_part(config: Settings, up: bool, silent: Mapping[str, str]) -> dict[str, Any] | None:
    """The streaming job, by its own report; None when it never ran and nothing would start it. `silent` are the sources
    that fell silent (`silent_sources`)."""
    report = read_json(config, STREAM)
    if report is None and not up:
        return None
    running = process_of(report) is not None
    fresh = report is not None and running and time.time() - report["at"] < FRESH_SECONDS
    streams = report["streams"] if report and running else []
    errors = [f"{s['topic']}: {s['last_error']}" for s in streams if s["last_error"]]
    errors += [f"{s['topic']}: {silent[s['topic']]}" for s in streams if s["topic"] in silent]
    workers = report.get("workers", []) if report and running else []
    is_mute = report is not None and running and not fresh
    if report and is_mute:
        errors.append(_no_report(report))
    elif running:
        errors += [f"{worker}: {text}" for worker, text in complaints(workers, time.time()).items()]
    ended = report is not None and not running
    reason = _exit_of_stream(report) if report and ended else None
    if not fresh:  # figures that nobody confirms are not shown as those of now
        streams = [s | dict.fromkeys(("events_per_second", "lag", "p95_ms")) for s in streams]
    told = streams if fresh else []
    latencies = [s["p95_ms"] for s in told if s["p95_ms"] is not None]
    return {
        "address": f"{config.kafka} → {config.lake}",
        "state": "running" if running else ("restarting" if ended else "starting") if up else "down",
        "restarts": stream_crashes(report),
        "within": CODE_SERVER,
        "events_per_second": round(sum(s["events_per_second"] for s in told), 1) if told else None,
        "lag": sum(s["lag"] for s in told) if told else None,
        "p95_ms": max(latencies, default=None),
        "last_error": _joined([*errors, reason]),
        "exit": reason,
        "errors": _distinct(errors),
        "stalled": is_mute or any(s["topic"] in silent for s in streams),
        "streams": {s["topic"]: s for s in streams},
        "workers": workers,
    }


def _exit_of_stream(report: dict[str, Any]) -> str | None:
    """Why it has ended; None where it was asked to."""
    if report["failure"]:
        return str(report["failure"])
    return None if report["ended"] or "pid" not in report else f"its process {report['pid']} was killed, or crashed"


def sources(config: Settings) -> dict[str, Any]:
    """What each source that runs has counted: simulators and bridges by their part's name, streams by their topic."""
    found = {}
    for path in config.run.glob("*.json"):
        content = read_json(config, path.name) or {}
        if content.get("samples") and process_of(content) is not None:
            found[path.stem] = content["samples"]
    report = read_json(config, STREAM)
    if report and process_of(report) is not None:
        found |= {s["topic"]: s["samples"]["of"] for s in report["streams"] if "samples" in s}
    return found


def silent_sources(config: Settings) -> dict[str, str]:
    """The sources that fell silent while their peers go on, with the reason, named as `sources` has them."""
    return stalled(sources(config), time.time())


def workers_by_part(config: Settings) -> dict[str, list[dict[str, Any]]]:
    """The workers of every process that lives, by its name, as it last told of them."""
    found = {}
    for path in sorted(config.run.glob("*.json")):
        content = read_json(config, path.name) or {}
        if content.get("workers") and process_of(content) is not None:
            found[path.stem] = content["workers"]
    return found


def _no_report(content: dict[str, Any]) -> str:
    quiet = time.time() - content["at"]
    return f"{NO_PROGRESS} {quiet:.0f} s: its process {content['pid']} lives and does not report"


def stands_still(error: str) -> bool:
    """Whether an error of a part says only that nothing moves, for which others may be to blame. A process that does
    not even report stands still by itself."""
    return NO_PROGRESS in error and "does not report" not in error


def _joined(errors: Iterable[str | None]) -> str | None:
    """Errors in a line."""
    return "; ".join(_distinct(errors)) or None


def _distinct(errors: Iterable[str | None]) -> list[str]:
    """Each error once: a part, its heartbeat and its worker may say the same."""
    said: list[str] = []
    for error in errors:
        if error and not any(error in earlier for earlier in said):
            said = [earlier for earlier in said if earlier not in error] + [error]
    return said
