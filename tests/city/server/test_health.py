import json
import re
import socket
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._daemon.types import DaemonHeartbeat

from city.alerts.store import alert_store
from city.alerts.watch import PlatformWatch
from city.kafka import KafkaServer
from city.questdb import QuestDBServer
from city.server.health import _check_kafka, _check_questdb, check_daemon
from city.settings import Settings
from city.stack.dagster import prepare_dagster_home
from city.stack.state import SUPERVISOR, identity
from city.stack.status import parts


def test_a_questdb_that_hangs_is_not_well_though_it_listens() -> None:
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        began = time.monotonic()
        reason = _check_questdb(QuestDBServer(f"127.0.0.1:{hung.getsockname()[1]}"))
    assert (reason.ok, reason.needed) == (False, False)
    assert "no answer from" in reason.detail
    assert time.monotonic() - began < 10


def test_a_kafka_that_hangs_is_not_well_though_it_listens() -> None:
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        reason = _check_kafka(KafkaServer(f"127.0.0.1:{hung.getsockname()[1]}"))
    assert not reason.ok
    assert "no Kafka answers at 127.0.0.1:" in reason.detail


def test_a_kafka_that_runs_answers(stack: Settings) -> None:
    assert _check_kafka(stack.kafka).ok


def test_a_daemon_that_hangs_is_not_well_though_its_process_runs(config: Settings) -> None:
    """As Dagster's own storage has its heartbeats; /health, `city status` and the alarms say the same."""
    home = config.home / "dagster"
    prepare_dagster_home(config, home)
    config.run.mkdir(parents=True)

    def runs(since: float) -> None:
        part = identity() | {"created": time.time() - since, "address": "", "state": "running", "last_error": None}
        (config.run / SUPERVISOR).write_text(json.dumps(identity() | {"parts": {"dagster-daemon": part}}))

    def alarm() -> str | None:
        """After half a minute in which nothing changes."""
        kept, now = alert_store(config), datetime.now(UTC)
        watch = PlatformWatch(config, kept)
        for seconds in (0, 5, 30):
            watch.look(now + timedelta(seconds=seconds))
        watch.close()
        causes = {a.cause: f"{a.severity}: {a.title}" for a in kept.alarms() if a.active}
        return causes.get("system/dagster-daemon")

    with dg.DagsterInstance.from_config(str(home)) as instance:

        def beat(ago: float) -> None:
            for kind in ("SENSOR", "SCHEDULER"):
                instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - ago, kind, "one", []))
                ago += 60

        runs(since=3600)
        assert [d.ok for d in check_daemon(config)] == [True], "nothing is known"
        beat(ago=30)
        assert ([d.ok for d in check_daemon(config)], alarm()) == ([True], None)
        beat(ago=150)
        (reason,) = check_daemon(config)
        said = parts(config)["dagster-daemon"]
        assert (reason.ok, reason.needed) == (False, False)
        wanted = r"no heartbeat for 15\d s: no schedule, sensor or run is started"
        assert re.fullmatch(wanted, reason.detail)
        assert re.fullmatch(wanted, said["last_error"])
        assert said["stalled"]
        assert re.fullmatch(f"error: dagster-daemon: {wanted}", alarm() or "")
        runs(since=20)
        assert [d.ok for d in check_daemon(config)] == [True], "it has been started a moment ago"
        beat(ago=0)
        assert alarm() is None
    (config.run / SUPERVISOR).unlink()
    assert check_daemon(config) == [], "no `city up` runs one"
