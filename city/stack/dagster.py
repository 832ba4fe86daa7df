"""Prepares Dagster's home under CITY_HOME, and describes its processes as parts: code server, daemon and webserver.

`dagster dev` starts the same three processes, and two more that only watch them. The supervisor does that already.
"""

import hashlib
import http.client
import json
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from city.net import accepts, split_address
from city.settings import CHECKOUT, Settings
from city.stack.daemon import CODE_SERVER, DAEMON
from city.stack.part import Spec
from city.stack.servers import python
from city.stack.state import STREAM_PART

LOCATION = "city"
_MODULE = "city_assets.definitions"
_POSTGRES = """
storage:
  postgres:
    postgres_url:
      env: CITY_DAGSTER_POSTGRES_URL
"""
_POSTGRES_URL = "CITY_DAGSTER_POSTGRES_URL"
_WORKSPACE = """\
load_from:
  - grpc_server:
      socket: {socket}
      location_name: {location}
"""
_LONGEST_SOCKET = 100  # bytes: the system accepts 107, and gRPC adds some to the path
_AFTER_SECONDS = 20.0  # Dagster's start needs a core for ten seconds, so the live city goes first, for so long at most
_HEALTH = "{instance{daemonHealth{allDaemonStatuses{required healthy lastHeartbeatTime}}}}"


def prepare_dagster_home(config: Settings, home: Path) -> None:
    """Writes dagster.yaml (the checkout's, and PostgreSQL as storage where that is set) and workspace.yaml."""
    home.mkdir(parents=True, exist_ok=True)
    text = (CHECKOUT / "dagster.yaml").read_text()
    (home / "dagster.yaml").write_text(text + (_POSTGRES if config.dagster_postgres_url else ""))
    path = json.dumps(str(code_server_socket(config)))
    (home / "workspace.yaml").write_text(_WORKSPACE.format(socket=path, location=LOCATION))


def code_server_socket(config: Settings) -> Path:
    """Returns the socket of the code server. It is a file, so no other user of the machine can send code to run."""
    path = (config.run / "dagster.sock").absolute()
    if len(bytes(path)) <= _LONGEST_SOCKET:
        return path
    digest = hashlib.sha256(bytes(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"city-{digest}.sock"


def _own_environment(config: Settings, home: Path) -> dict[str, str]:
    found = {"DAGSTER_HOME": str(home), "PYTHONWARNINGS": "ignore"}
    if config.dagster_postgres is not None:  # it may be from a file
        found[_POSTGRES_URL] = config.dagster_postgres
    return found


def dagster(config: Settings, environment: dict[str, str]) -> list[Spec]:
    """Returns the specs of the code server, and of the daemon and the webserver, which read its definitions."""
    home, path = config.home / "dagster", code_server_socket(config)
    environment = python(config) | environment | _own_environment(config, home)
    workspace = ["-w", str(home / "workspace.yaml")]
    host, port = split_address(config.dagster)
    module = [sys.executable, "-m"]
    code = ["dagster", "api", "grpc", "--socket", str(path), "-m", _MODULE, "-d", str(CHECKOUT)]
    # "Lazy": definitions that cannot be loaded show as an error in the UI, and do not end the server.
    code += ["--location-name", LOCATION, "--lazy-load-user-code", "--log-level", "WARNING"]
    daemon_began = [time.time()]

    def prepare_code() -> None:
        prepare_dagster_home(config, home)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)

    def prepare_daemon() -> None:
        daemon_began[0] = time.time()

    return [
        Spec(
            CODE_SERVER,
            str(path),
            [*module, *code],
            environment,
            prepare=prepare_code,
            ready=lambda: _is_listening(path),
            after=frozenset({"server", STREAM_PART}),
            after_seconds=_AFTER_SECONDS,
            stage=2,
            stop_session=True,  # the server waits for its runs, and the stream's run ends only by a signal
            stop_seconds=20,
        ),
        Spec(
            DAEMON,
            str(home),
            [*module, "dagster._daemon", "run", *workspace],
            environment,
            prepare=prepare_daemon,
            ready=lambda: _are_daemons_healthy(host, port, daemon_began[0]),
            after=frozenset({CODE_SERVER}),
            stage=3,
            stop_signal=signal.SIGINT,
        ),
        Spec(
            "dagster",
            f"http://{config.dagster}",
            [*module, "dagster_webserver", "-h", config.dagster_host, "-p", str(port), *workspace],
            environment,
            ready=lambda: accepts(host, port),
            after=frozenset({CODE_SERVER}),
            stage=3,
            stop_signal=signal.SIGINT,
            ports={"CITY_DAGSTER_PORT": port},
            host=config.dagster_host,
            host_setting="CITY_DAGSTER_HOST",
            exposes="start and stop every run, and read what they log",
        ),
    ]


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _are_daemons_healthy(host: str, port: int, since: float) -> bool:
    """Returns whether every required daemon has sent a heartbeat since then, according to the webserver."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        body = json.dumps({"query": _HEALTH})
        connection.request("POST", "/graphql", body, {"content-type": "application/json"})
        response = json.load(connection.getresponse())
        daemons = response["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    finally:
        connection.close()
    beats = [d["healthy"] and (d["lastHeartbeatTime"] or 0) >= since for d in daemons if d["required"]]
    return bool(beats) and all(beats)
