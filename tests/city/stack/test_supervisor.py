import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from city.net import join_address, split_address
from city.settings import Settings
from city.stack.console import print_warnings, show, wait_for_parts
from city.stack.dagster import code_server_socket, prepare_dagster_home
from city.stack.doctor import examine
from city.stack.part import CannotStart, Spec
from city.stack.servers import python
from city.stack.specs import specs
from city.stack.state import STREAM, SUPERVISOR, identity, is_alive, read_json
from city.stack.status import status, workers_by_part
from city.stack.supervisor import Supervisor, end_leftovers
from city.stack.terminal import Terminal
from city.stack.unknown_settings import unknown_settings
from city.stack.worker import Worker
from city.streaming.heartbeat import Heartbeat
from tests.live import until

_SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_the_parts_follow_from_the_domains(config: Settings) -> None:
    assert "history" not in [spec.name for spec in specs(config)], "the settings of tests have CITY_HISTORY_DAYS=0"
    config = config.model_copy(update={"history_days": 14})
    names = [spec.name for spec in specs(config)]
    assert names == [
        *("kafka", "questdb", "history", "stream", "mqtt", "mqtt-bridge", "simulators", "server"),
        *("dagster-code", "dagster-daemon", "dagster"),
    ]
    simulators = next(spec for spec in specs(config) if spec.name == "simulators")
    assert simulators.argv[-5:] == ["simulate", "environment", "equipment", "payments", "traffic"]
    assert list(simulators.loops) == [
        f"simulator-{name}" for name in ("environment", "equipment", "payments", "traffic")
    ]
    always = ["server", "dagster-code", "dagster-daemon", "dagster"]
    only = config.model_copy(update={"domains": ["traffic"]})
    alone = ["stream", "mqtt-bridge"]  # without a broker, because its source has a Kafka topic
    assert [spec.name for spec in specs(only)] == ["kafka", "questdb", "history", *alone, "simulators", *always]
    assert [spec.name for spec in specs(only, simulators=False)] == ["kafka", "questdb", *alone, *always]
    machines = config.model_copy(update={"domains": ["equipment"]})
    assert "mqtt-bridge" not in [spec.name for spec in specs(machines)]
    rated = next(spec for spec in specs(only, rate=5.0) if spec.name == "simulators")
    assert rated.argv[-3:] == ["traffic", "--rate", "5.0"]


def test_an_address_in_the_settings_means_that_server_and_none_of_ours(config: Settings) -> None:
    given = config.model_copy(
        update={"kafka_address": "kafka:9092", "questdb_address": "db:9000", "mqtt_address": "mqtt:1883"}
    )
    by_name = {spec.name: spec for spec in specs(given)}
    assert [by_name[name].argv for name in ("kafka", "questdb", "mqtt")] == [[], [], []]
    assert (by_name["kafka"].address, by_name["questdb"].address) == ("kafka:9092", "http://db:9000")


def test_a_port_in_use_is_named_with_its_setting(config: Settings) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", config.questdb_http_port))
        server.listen()
        with pytest.raises(CannotStart) as error:
            Supervisor(config, specs(config)).check()
    assert f"port {config.questdb_http_port} is in use by" in str(error.value)
    assert "set CITY_QUESTDB_HTTP_PORT" in str(error.value)


def test_each_part_starts_after_those_before_it_and_what_was_started_is_stopped(config: Settings) -> None:
    order: list[str] = []
    opened = config.home / "opened"

    def spec(name: str, **more: Any) -> Spec:
        return Spec(name, "a", _SLEEP, prepare=lambda: order.append(name), **more)

    parts = [
        spec("late", after=frozenset({"door", "absent"}), stage=1),
        spec("door", ready=opened.exists),
        spec("early"),
        spec("impatient", after=frozenset({"door"}), after_seconds=0.3),
    ]
    supervisor = Supervisor(config, parts)
    supervisor.check()
    pids: list[int] = []

    def changed(running: Supervisor) -> None:
        if "impatient" in order and not opened.exists():
            assert order == ["door", "early", "impatient"]
            states = {name: part["state"] for name, part in status(config)["parts"].items()}
            assert (states["late"], states["door"]) == ("starting", "starting")
            opened.touch()
        if running.is_ready() and not running.stop.is_set():
            pids.extend(part.pid for part in running.parts if part.pid)
            with pytest.raises(CannotStart, match="already up"):
                Supervisor(config, parts).check()
            running.stop.set()

    supervisor.run(changed)
    assert order == ["door", "early", "impatient", "late"]
    assert len(pids) == 4
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert read_json(config, SUPERVISOR) is None
    assert status(config)["parts"] == {}


def test_of_two_that_start_at_the_same_moment_one_is_refused(config: Settings) -> None:
    """Neither has written its state yet."""
    first = Supervisor(config, [])
    first.check()
    with pytest.raises(CannotStart, match="another `city up` starts now"):
        Supervisor(config, []).check()
    del first
    Supervisor(config, []).check()


@pytest.mark.parametrize("name", [STREAM, SUPERVISOR])
def test_a_report_without_content_is_none(config: Settings, name: str) -> None:
    config.run.mkdir(parents=True)
    for content in ("", "{}", "[]", "garbage"):
        (config.run / name).write_text(content)
        assert read_json(config, name) is None
        assert status(config)["parts"] == {}


def test_a_part_that_cannot_be_started_now_is_started_later(config: Settings) -> None:
    """As on a full disk. The other parts continue."""
    attempts: list[str] = []
    errors: list[str | None] = []

    def prepare() -> None:
        attempts.append("")
        if len(attempts) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    supervisor = Supervisor(config, [Spec("full", "", _SLEEP, prepare=prepare), Spec("other", "", _SLEEP)])

    def changed(running: Supervisor) -> None:
        errors.append(running.parts[0].last_error)
        if running.is_ready():
            running.stop.set()

    supervisor.run(changed)
    assert len(attempts) == 2
    assert errors[0] == "cannot be started: [Errno 28] No space left on device"
    assert [part.restarts for part in supervisor.parts] == [1, 0]


def test_a_city_that_cannot_write_its_state_continues(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    rounds: list[bool] = []

    def changed(supervisor: Supervisor) -> None:
        rounds.append(supervisor.is_ready())
        if len(rounds) == 3:
            supervisor.stop.set()

    monkeypatch.setattr("city.stack.supervisor._replace_state", fail)
    Supervisor(config, [Spec("part", "", _SLEEP)]).run(changed)
    assert rounds[:3] == [True] * 3


def test_what_would_be_left_behind_is_known_after_each_start(config: Settings) -> None:
    """A supervisor that is killed before its first part is ready."""
    known: list[set[str]] = []

    def look() -> None:
        parts = (read_json(config, SUPERVISOR) or {"parts": {}})["parts"]
        known.append({name for name, part in parts.items() if part["pid"]})

    specs = [Spec(name, "", _SLEEP, prepare=look, ready=lambda: False) for name in ("first", "second", "third")]
    supervisor = Supervisor(config, specs)
    supervisor.stop.set()
    supervisor.run()
    assert known == [set(), {"first"}, {"first", "second"}]


def test_two_settings_of_one_port_are_named(config: Settings) -> None:
    same = config.model_copy(update={"serve_port": config.kafka_port})
    with pytest.raises(CannotStart, match=f"CITY_KAFKA_PORT and CITY_SERVE_PORT are both {config.kafka_port}"):
        Supervisor(same, specs(same)).check()


def test_a_host_that_is_not_here_and_a_domain_that_is_none_are_named(config: Settings) -> None:
    elsewhere = config.model_copy(update={"host": "192.0.2.7"})
    with pytest.raises(CannotStart, match=r"CITY_HOST: 192\.0\.2\.7 is no address of this machine"):
        Supervisor(elsewhere, specs(elsewhere)).check()
    with pytest.raises(CannotStart, match="CITY_DOMAINS: no domain moon; known: environment, equipment"):
        specs(config.model_copy(update={"domains": ["moon"]}))


def test_the_workers_of_a_process_are_told_of_once(config: Settings) -> None:
    worker = Worker("one", lambda worker: worker.stop_requested.wait(20) and None).start()
    for beat in (Heartbeat(config, "simulators"), Heartbeat(config, "simulator-traffic", is_loop=True)):
        beat.beat()
    workers = workers_by_part(config)
    worker.stop()
    assert list(workers) == ["simulators"]
    assert "one" in [summary["name"] for summary in workers["simulators"]]


def test_what_a_killed_supervisor_left_is_ended_by_the_next(config: Settings) -> None:
    left = subprocess.Popen(_SLEEP, start_new_session=True)
    other = subprocess.Popen(_SLEEP, start_new_session=True)
    created = psutil.Process(left.pid).create_time()
    config.run.mkdir(parents=True)
    state = {
        "pid": 999_999_999,
        "created": 1.0,
        "parts": {
            "kafka": {"pid": left.pid, "created": created, "address": "a", "state": "running", "last_error": None},
            "reused": {"pid": other.pid, "created": 1.0, "address": "b", "state": "running", "last_error": None},
        },
    }
    (config.run / SUPERVISOR).write_text(json.dumps(state))
    report = status(config)
    assert {part["state"] for part in report["parts"].values()} == {"down"}
    assert report["leftovers"] == {"kafka": left.pid}
    console = Terminal(record=True, width=200)
    show(report, console)
    assert f"`city up` was killed and left these processes, which nobody supervises: kafka (pid {left.pid})" in (
        console.export_text()
    )
    (ports,) = (finding for finding in examine(config) if finding.what.startswith("port"))
    assert f"kafka (pid {left.pid})" in ports.actual
    assert end_leftovers(config) == ["kafka"]
    assert not psutil.pid_exists(left.pid)
    assert other.poll() is None
    other.kill()
    other.wait()


def test_leftovers_end_in_the_order_of_a_stop_and_are_not_judged_meanwhile(config: Settings) -> None:
    """The server, which ends before Kafka, looks at the city when it is asked to end."""
    config.run.mkdir(parents=True)
    kafka = subprocess.Popen(_SLEEP, start_new_session=True)
    look = (
        "import signal, psutil; from city.settings import settings\n"
        "from city.stack.status import is_stopping\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "print('up', flush=True)\n"
        "signal.sigwait({signal.SIGTERM})\n"
        f"print(is_stopping(settings()), psutil.Process({kafka.pid}).status() != 'zombie', flush=True)"
    )
    server = subprocess.Popen([sys.executable, "-c", look], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    part = {"address": "", "state": "running", "last_error": None}
    parts = {
        name: part | {"pid": pid, "created": psutil.Process(pid).create_time(), "stage": stage}
        for stage, (name, pid) in enumerate([("kafka", kafka.pid), ("server", server.pid)])
    }
    (config.run / SUPERVISOR).write_text(json.dumps({"pid": 999_999_999, "created": 1.0, "parts": parts}))
    assert end_leftovers(config) == ["kafka", "server"]
    assert server.stdout.read() == "True True\n", "the city stops, and Kafka still runs"
    assert None not in (server.poll(), kafka.poll())
    assert read_json(config, SUPERVISOR) is None


def test_a_start_in_the_background_fails_where_a_part_never_runs(
    config: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """The city is one part that ends at once, again and again."""
    config.run.mkdir(parents=True)
    (config.run / STREAM).write_text(json.dumps(identity() | {"at": time.time(), "ended": False, "streams": []}))
    program = (
        "import sys; from city.settings import settings; from city.stack.part import Spec; "
        "from city.stack.supervisor import Supervisor; "
        "Supervisor(settings(), [Spec('bridge', '', [sys.executable, '-c', 'raise SystemExit(1)'], "
        "ready=lambda: False)]).run()"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        states = wait_for_parts(config, process, Terminal(), 0)
        assert states == ["the supervisor"], "a stream that another process runs is not this city"
        until(lambda: (read_json(config, SUPERVISOR) or {}).get("pid") == process.pid)
        assert wait_for_parts(config, process, Terminal(), 2) == ["bridge"]
        assert "starting bridge" in capsys.readouterr().out
        process.terminate()
        process.wait()
        with pytest.raises(CannotStart, match=r"ended before every part ran; its log .*up\.log says why"):
            wait_for_parts(config, process, Terminal())
    finally:
        process.kill()
        process.wait()


def test_a_loop_inside_a_part_is_shown_by_its_own_heartbeat(config: Settings) -> None:
    config.run.mkdir(parents=True)
    simulators = {
        "pid": os.getpid(),
        "created": 1.0,
        "address": "",
        "state": "running",
        "last_error": None,
        "loops": {"simulator-a": "topic_a", "simulator-b": "topic_b"},
    }
    state = {"pid": os.getpid(), "created": psutil.Process().create_time(), "parts": {"simulators": simulators}}
    (config.run / SUPERVISOR).write_text(json.dumps(state))
    beat = {"at": time.time(), "events_per_second": 7.0, "lag": None, "last_error": None}
    (config.run / "simulator-a.json").write_text(json.dumps(beat))
    (config.run / "simulator-b.json").write_text(json.dumps(beat | {"at": time.time() - 60}))
    parts = status(config)["parts"]
    shown = {name: (part["address"], part["state"], part["events_per_second"]) for name, part in parts.items()}
    assert shown["simulator-a"] == ("topic_a", "running", 7.0)
    assert shown["simulator-b"] == ("topic_b", "restarting", None)
    lives = identity() | beat | {"at": time.time() - 60}
    (config.run / "simulator-b.json").write_text(json.dumps(lives))
    loop = status(config)["parts"]["simulator-b"]
    assert (loop["state"], loop["last_error"], loop["stalled"]) == ("running", "no progress for 60 s", True)


def test_dagster_reads_the_definitions_from_the_code_server_of_this_city(config: Settings, tmp_path: Path) -> None:
    prepare_dagster_home(config, tmp_path / "d")
    (origin,) = yaml.safe_load((tmp_path / "d" / "workspace.yaml").read_text())["load_from"]
    assert origin == {"grpc_server": {"socket": str(config.run / "dagster.sock"), "location_name": "city"}}
    deep = config.model_copy(update={"home": Path("/" + "long/" * 30)})
    other = config.model_copy(update={"home": Path("/" + "long/" * 31)})
    assert len(str(code_server_socket(deep))) <= 100
    assert code_server_socket(deep) == code_server_socket(deep) != code_server_socket(other)


def test_bytecode_is_kept_where_python_must_not_write_it_beside_the_sources(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert "PYTHONPYCACHEPREFIX" not in python(config)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | python(config)
    code = "import sys, city.net; print(sys.dont_write_bytecode, city.net.__cached__)"
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    kept, path = said.stdout.split()
    assert kept == "False"
    assert Path(path).is_file()
    assert config.cache_folder in Path(path).parents


def test_the_stream_is_shown_by_its_own_report(config: Settings) -> None:
    config.run.mkdir(parents=True)
    stream = {
        "topic": "t",
        "rows": 9,
        "events_per_second": 5.04,
        "lag": 3,
        "p95_ms": 120.0,
        "last_error": "QuestDB is unavailable",
    }
    report = identity() | {
        "at": time.time(),
        "ended": False,
        "failure": None,
        "streams": [stream, stream | {"topic": "u", "last_error": None}],
    }
    (config.run / "stream.json").write_text(json.dumps(report))
    part_status = status(config)["parts"]["stream"]
    assert (part_status["state"], part_status["events_per_second"], part_status["lag"], part_status["p95_ms"]) == (
        "running",
        10.1,
        6,
        120.0,
    )
    assert part_status["last_error"] == "t: QuestDB is unavailable"
    (config.run / "stream.json").write_text(json.dumps(report | {"at": time.time() - 100}))
    part_status = status(config)["parts"]["stream"]
    assert (part_status["state"], part_status["last_error"]) == (
        "running",
        f"t: QuestDB is unavailable; no progress for 100 s: its process {os.getpid()} lives and does not report",
    )
    assert (part_status["events_per_second"], part_status["lag"], part_status["p95_ms"]) == (None, None, None), (
        "they are of before"
    )
    assert {s["lag"] for s in part_status["streams"].values()} == {None}
    (config.run / "stream.json").write_text(json.dumps(report | {"pid": 999_999_999, "failure": "fenced"}))
    part_status = status(config)["parts"]["stream"]
    assert (part_status["state"], part_status["last_error"]) == ("down", "fenced")


def test_the_stream_of_a_supervisor_is_a_part_of_its_own(config: Settings) -> None:
    """Without a report it has the state and the error of its process. It is in no other part's process."""
    config.run.mkdir(parents=True)
    part = {"address": "a", "state": "restarting", "last_error": "ended with code 1", "pid": None}
    (config.run / SUPERVISOR).write_text(json.dumps(identity() | {"parts": {"stream": part}}))
    part_status = status(config)["parts"]["stream"]
    assert (part_status["state"], part_status["exit"], part_status.get("within")) == (
        "starting",
        "ended with code 1",
        None,
    )
    report = identity() | {"at": time.time(), "ended": False, "failure": None, "streams": []}
    (config.run / STREAM).write_text(json.dumps(report))
    part_status = status(config)["parts"]["stream"]
    assert (part_status["state"], part_status["exit"]) == ("running", None)
    (config.run / SUPERVISOR).write_text(json.dumps(identity() | {"parts": {}}))
    assert status(config)["parts"]["stream"]["within"] == "dagster-code"


def test_a_part_that_is_done_is_no_longer_one(config: Settings) -> None:
    """Whoever waits until every part runs need not know that some end."""
    config.run.mkdir(parents=True)
    part = {"address": "", "state": "running", "last_error": None, "pid": None}
    for state, names in (("running", ["history", "stream"]), ("done", ["stream"])):
        parts = {"history": part | {"state": state}}
        (config.run / SUPERVISOR).write_text(json.dumps(identity() | {"parts": parts}))
        assert sorted(status(config)["parts"]) == names


def test_a_part_tells_of_its_workers_and_of_a_process_that_does_not_report(config: Settings) -> None:
    config.run.mkdir(parents=True)
    me = identity()
    part = me | {"address": "a", "state": "running", "last_error": None}
    (config.run / SUPERVISOR).write_text(json.dumps(me | {"parts": {"bridge": part}}))
    now = time.time()
    worker = {"name": "mqtt", "state": "running", "restarts": 1, "items": 5, "began": now - 100, "last_progress": now}
    worker |= {"last_error": None, "stall_seconds": 60.0}
    beat = me | {"at": now, "events_per_second": 3.0, "lag": 0, "last_error": None, "workers": [worker]}

    def shown(**changes: Any) -> dict[str, Any]:
        (config.run / "bridge.json").write_text(json.dumps(beat | changes))
        part_status: dict[str, Any] = status(config)["parts"]["bridge"]
        return part_status

    assert (shown()["last_error"], shown()["workers"]) == (None, [worker])
    assert shown(workers=[worker | {"last_error": "broken"}])["last_error"] == "mqtt: broken"
    assert shown(workers=[worker | {"last_progress": now - 90}])["last_error"] == "mqtt: no progress for 90 s"
    assert shown(at=now - 25)["last_error"] == (
        f"no progress for 25 s: its process {os.getpid()} lives and does not report"
    )


def test_a_source_that_falls_silent_while_its_peers_go_on_is_reported(config: Settings) -> None:
    config.run.mkdir(parents=True)
    me, now = identity(), time.time()
    names = ("mqtt-bridge", "simulator-traffic")
    part = me | {"address": "a", "state": "running", "last_error": None}
    (config.run / SUPERVISOR).write_text(json.dumps(me | {"parts": dict.fromkeys(names, part)}))
    for name, last in zip(names, (now - 27, now), strict=True):
        samples = [(last - 5 * n, 1_000_000 - 1_000 * n) for n in range(10, -1, -1)]
        beat = me | {"at": now, "events_per_second": 0.0, "lag": 0, "last_error": None, "samples": samples}
        (config.run / f"{name}.json").write_text(json.dumps(beat))
    parts = status(config)["parts"]
    assert parts["mqtt-bridge"]["last_error"] == "no progress for 27 s: was 200 events/s; its peers go on"
    assert parts["simulator-traffic"]["last_error"] is None


def test_a_process_is_known_by_its_start_too() -> None:
    assert is_alive(os.getpid(), psutil.Process().create_time())
    assert not is_alive(os.getpid(), 1.0)
    assert not is_alive(999_999_999, 1.0)


def test_dagster_stores_in_sqlite_unless_postgresql_is_set(config: Settings, tmp_path: Path) -> None:
    prepare_dagster_home(config, tmp_path / "d")
    assert "postgres:" not in (tmp_path / "d" / "dagster.yaml").read_text()
    given = Settings(_env_file=None, home=tmp_path, dagster_postgres_url="postgresql://u:secret@h/db")  # type: ignore[call-arg, arg-type]
    prepare_dagster_home(given, tmp_path / "d")
    text = (tmp_path / "d" / "dagster.yaml").read_text()
    assert "env: CITY_DAGSTER_POSTGRES_URL" in text
    assert "secret" not in text


def test_a_misspelt_setting_is_named_with_the_one_that_was_meant(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITY_LATENCY_SECOND", "0.25")
    findings = {finding.what: finding.fix for finding in examine(config) if not finding.ok}
    assert findings["setting CITY_LATENCY_SECOND"] == "did you mean CITY_LATENCY_SECONDS?"
    assert "setting CITY_HOME" not in findings
    assert unknown_settings(["city_home", "CITY_PORT", "HOME"]) == {"CITY_PORT": None}
    terminal = Terminal(record=True, width=200)
    print_warnings([], terminal)
    assert "CITY_LATENCY_SECOND is ignored, because there is no such setting: did you mean CITY_LATENCY_SECONDS?" in (
        terminal.export_text()
    )


def test_the_doctor_names_what_is_wrong_and_the_mend(config: Settings) -> None:
    healthy = {finding.what: finding for finding in examine(config)}
    assert healthy["Java"].ok
    assert healthy[f"port {config.kafka_port}"].ok
    with socket.socket() as server:
        server.bind(("127.0.0.1", config.kafka_port))
        server.listen()
        finding = next(f for f in examine(config) if f.what == f"port {config.kafka_port}")
    assert not finding.ok
    assert "CITY_KAFKA_PORT" in finding.fix


def test_an_address_that_is_none_is_refused() -> None:
    assert split_address("[::1]:9092") == ("::1", 9092)
    for host in ("::1", "127.0.0.1", "kafka.example.org"):
        assert split_address(join_address(host, 9092)) == (host, 9092)
    for address in ("kafka", "kafka:", ":9092", "kafka:abc"):
        with pytest.raises(ValueError, match="host:port"):
            split_address(address)
