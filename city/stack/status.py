"""Computes the status of the platform, for `city status`.

It reads the files under <home>/run, the Delta logs and the heartbeats in Dagster's storage. It queries no server except
PostgreSQL, where that is Dagster's storage.
"""

import time
from collections.abc import Collection, Iterable, Mapping

from city.contracts.registry import domains
from city.lake import STRAYS, bronze_path, locate, quarantine_path, row_count
from city.settings import Settings
from city.stack.daemon import CODE_SERVER, DAEMON, daemon_hangs
from city.stack.history_progress import history_status
from city.stack.progress import NO_PROGRESS, stalled_sources
from city.stack.reports import PartStatus, PlatformStatus, StreamSummary, WorkerSummary
from city.stack.state import (
    SERVER,
    STREAM,
    STREAM_PART,
    SUPERVISOR,
    Report,
    is_alive,
    leftovers,
    process_of,
    read_json,
    stream_crashes,
)
from city.stack.worker import complaints

FRESH_SECONDS = 15.0
"""A living process whose last report is older counts as making no progress."""


def status(config: Settings) -> PlatformStatus:
    """Returns the status of the platform."""
    contracts = [c for d in domains(config) if config.is_active(d.name) for c in d.contracts]
    quarantined = {c.topic: row_count(quarantine_path(config.lake, c)) for c in contracts}
    strays = row_count(locate(config.lake, "quarantine", STRAYS))
    return {
        "parts": parts(config),
        "leftovers": leftovers(config),
        "bronze_rows": {c.topic: row_count(bronze_path(config.lake, c)) for c in contracts},
        "quarantined": quarantined | ({STRAYS: strays} if strays else {}),
        "alarm_channels": alarm_channels(config),
        "history": history_status(config),
    }


def alarm_channels(config: Settings) -> dict[str, str]:
    """Returns the channels that do not accept alarm messages, with the reason, as reported by the city's server."""
    beat = read_json(config, SERVER) or {}
    return beat.get("alarm_channels", {}) if process_of(beat) is not None else {}


def parts(config: Settings) -> dict[str, PartStatus]:
    """Returns the state of each part of the supervisor, of the stream, and of other sources.

    The stream and the other sources are listed also when no supervisor started them.
    """
    supervisor = read_json(config, SUPERVISOR)
    up = supervisor is not None and is_alive(supervisor["pid"], supervisor["created"])
    silent = silent_sources(config)
    states: dict[str, PartStatus] = {}
    supervised = (supervisor or {"parts": {}})["parts"]
    for name, part in supervised.items():
        if name == STREAM_PART or part["state"] == "done":  # what is done is no part of the city any more
            continue
        beat = (read_json(config, f"{name}.json") or {}) if up else {}
        fresh = time.time() - beat.get("at", 0) < FRESH_SECONDS
        workers = beat.get("workers", [])
        errors = [beat.get("last_error") if fresh else None, silent.get(name)]
        is_mute = bool(beat) and not fresh and beat.get("pid") == part["pid"]
        if is_mute:
            errors.append(_describe_silence(beat))
        errors += [f"{worker}: {text}" for worker, text in complaints(workers, time.time()).items()] if fresh else []
        is_watched = name == DAEMON and up and part["state"] == "running"
        hangs = daemon_hangs(config, part["created"]) if is_watched else None
        errors.append(hangs)
        states[name] = {
            "address": part["address"],
            "state": part["state"] if up else "down",
            "restarts": part.get("restarts", 0),
            "events_per_second": beat.get("events_per_second") if fresh else None,
            "lag": beat.get("lag") if fresh else None,
            "p95_ms": None,
            "last_error": _join_errors([part["last_error"], *errors]),
            "exit": part["last_error"],
            "errors": _distinct_errors(errors),
            "stalled": is_mute or name in silent or hangs is not None,
            "workers": workers if fresh else [],
        }
        for loop, address in part.get("loops", {}).items():
            loop_state = _loop_state(config, loop, address, states[name]["state"], silent.get(loop), part["pid"])
            loop_state["within"] = name
            states[loop] = loop_state
    stream = stream_part(config, up, silent, supervised.get(STREAM_PART))
    return states | _unsupervised_states(config, states.keys(), silent) | ({"stream": stream} if stream else {})


def _unsupervised_states(
    config: Settings, supervised: Collection[str], silent: Mapping[str, str]
) -> dict[str, PartStatus]:
    """Returns the states of processes with a heartbeat that no supervisor started.

    For example, a person runs a bridge or a simulator from a shell.
    """
    states = {}
    for path in sorted(config.run.glob("*.json")):
        beat = read_json(config, path.name) or {}
        if path.stem not in supervised and beat.get("samples") and process_of(beat) is not None:
            states[path.stem] = _loop_state(config, path.stem, "", "running", silent.get(path.stem), beat["pid"])
    return states


def _loop_state(
    config: Settings, name: str, address: str, state: str, silent: str | None, pid: int | None
) -> PartStatus:
    """Returns the state of a loop inside a part, from the loop's own heartbeat.

    The loop runs while its heartbeat is fresh. It makes no progress while its heartbeat is old and the process `pid`
    that has written it lives. Otherwise it has the `state` of its part. `silent` is the reason why it counts as silent,
    or None.
    """
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
        "last_error": _join_errors(errors),
        "exit": None,
        "errors": _distinct_errors(errors),
        "stalled": is_mute or silent is not None,
    }


def is_stopping(config: Settings) -> bool:
    """Returns whether the platform is being stopped."""
    supervisor = read_json(config, SUPERVISOR) or {}
    # A supervisor that is killed while it stops its parts leaves this state.
    return bool(supervisor.get("stopping")) and is_alive(supervisor["pid"], supervisor["created"])


def stream_part(
    config: Settings, up: bool, silent: Mapping[str, str], supervised: Report | None = None
) -> PartStatus | None:
    """Returns the state of the stream, from its own report.

    Returns None when it never ran and the platform is not `up`. `silent` are the silent sources (see
    `silent_sources`). `supervised` is the supervisor's report of the stream, where it runs that; otherwise the stream
    is a run of Dagster.
    """
    report = read_json(config, STREAM)
    if report is None and not up:
        return None
    running = process_of(report) is not None
    fresh = report is not None and running and time.time() - report["at"] < FRESH_SECONDS
    streams: list[StreamSummary] = report["streams"] if report and running else []
    errors = [f"{s['topic']}: {s['last_error']}" for s in streams if s["last_error"]]
    errors += [f"{s['topic']}: {silent[s['topic']]}" for s in streams if s["topic"] in silent]
    workers = report.get("workers", []) if report and running else []
    is_mute = report is not None and running and not fresh
    if report and is_mute:
        errors.append(_describe_silence(report))
    elif running:
        errors += [f"{worker}: {text}" for worker, text in complaints(workers, time.time()).items()]
    ended = report is not None and not running
    reason = _exit_reason(report) if report and ended else None
    if supervised and up and not running:  # it may have ended before it could report
        reason = supervised["last_error"] or reason
    if not fresh:  # old figures must not look like current ones
        streams = [{**s, "events_per_second": None, "lag": None, "p95_ms": None} for s in streams]
    current = streams if fresh else []
    latencies = [s["p95_ms"] for s in current if s["p95_ms"] is not None]
    state: PartStatus = {
        "address": f"{config.kafka} → {config.lake}",
        "state": "running" if running else ("restarting" if ended else "starting") if up else "down",
        "restarts": stream_crashes(report),
        "events_per_second": round(sum(s["events_per_second"] or 0.0 for s in current), 1) if current else None,
        "lag": sum(s["lag"] or 0 for s in current) if current else None,
        "p95_ms": max(latencies, default=None),
        "last_error": _join_errors([*errors, reason]),
        "exit": reason,
        "errors": _distinct_errors(errors),
        "stalled": is_mute or any(s["topic"] in silent for s in streams),
        "streams": {s["topic"]: s for s in streams},
        "workers": workers,
    }
    if not supervised:
        state["within"] = CODE_SERVER
    return state


def _exit_reason(report: Report) -> str | None:
    """Returns why the stream has ended; None where a stop was requested."""
    if report["failure"]:
        return str(report["failure"])
    return None if report["ended"] or "pid" not in report else f"its process {report['pid']} was killed, or crashed"


def sources(config: Settings) -> dict[str, list[tuple[float, int]]]:
    """Returns the samples of each running source: simulators and bridges by their part's name, streams by topic."""
    samples = {}
    for path in config.run.glob("*.json"):
        content = read_json(config, path.name) or {}
        if content.get("samples") and process_of(content) is not None:
            samples[path.stem] = content["samples"]
    report = read_json(config, STREAM)
    if report and process_of(report) is not None:
        samples |= {s["topic"]: s["samples"]["of"] for s in report["streams"] if "samples" in s}
    return samples


def silent_sources(config: Settings) -> dict[str, str]:
    """Returns the sources that fell silent while their peers go on, with the reason, by the names of `sources`."""
    return stalled_sources(sources(config), time.time())


def workers_by_part(config: Settings) -> dict[str, list[WorkerSummary]]:
    """Returns the workers of every living process, by its name, from its last report."""
    workers = {}
    for path in sorted(config.run.glob("*.json")):
        content = read_json(config, path.name) or {}
        if content.get("workers") and process_of(content) is not None:
            workers[path.stem] = content["workers"]
    return workers


def _describe_silence(content: Report) -> str:
    quiet = time.time() - content["at"]
    return f"{NO_PROGRESS} {quiet:.0f} s: its process {content['pid']} lives and does not report"


def stands_still(error: str) -> bool:
    """Returns whether an error of a part reports only a lack of progress, which another part may have caused.

    A process that does not report at all is its own cause.
    """
    return NO_PROGRESS in error and "does not report" not in error


def _join_errors(errors: Iterable[str | None]) -> str | None:
    """Joins the errors to one line; None where there are none."""
    return "; ".join(_distinct_errors(errors)) or None


def _distinct_errors(errors: Iterable[str | None]) -> list[str]:
    """Returns each error once: a part, its heartbeat and its worker may report the same."""
    distinct: list[str] = []
    for error in errors:
        if error and not any(error in earlier for earlier in distinct):
            distinct = [earlier for earlier in distinct if earlier not in error] + [error]
    return distinct
