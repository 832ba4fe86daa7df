import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from city.net import accepts
from city.stack.part import Part, Spec, can_bind, describe_exit, end_session, last_line, listener
from tests.live import until

_STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def part(folder: Path, code: str, **more: object) -> Part:
    return Part(Spec("thing", "nowhere", [sys.executable, "-c", code], **more), folder)  # type: ignore[arg-type]


def watch(process: Part, state: str) -> None:
    until(lambda: process.watch() or process.state == state)


def test_a_part_is_started_watched_and_stopped(tmp_path: Path) -> None:
    process = part(tmp_path, "import time; time.sleep(60)")
    assert process.state == "down"
    process.start()
    assert process.state == "starting"
    watch(process, "running")
    pid = process.pid
    assert pid is not None
    process.signal()
    process.await_stop()
    assert (process.state, process.pid, psutil.pid_exists(pid)) == ("down", None, False)


def test_a_part_that_ends_is_started_again_and_its_last_words_are_kept(tmp_path: Path) -> None:
    process = part(tmp_path, "print('cannot go on'); raise SystemExit(3)")
    process.start()
    watch(process, "restarting")
    assert process.last_error == f"ended with code 3; its log {process.log} ends: cannot go on"
    until(lambda: process.watch() or process.restarts == 2)
    process.await_stop()


def test_a_part_that_ends_in_silence_is_not_explained_by_the_words_of_the_process_before(tmp_path: Path) -> None:
    mark = tmp_path / "second"
    first = f"import pathlib; m = pathlib.Path({str(mark)!r}); first = not m.exists(); m.touch()"
    process = part(tmp_path, f"{first}; print('cannot go on') if first else None; raise SystemExit(3)")
    process.start()
    watch(process, "restarting")
    assert str(process.last_error).endswith("ends: cannot go on")
    until(lambda: process.watch() or str(process.last_error).endswith("does not say why"))
    assert process.restarts == 1
    process.await_stop()


def test_what_a_part_that_was_killed_had_started_ends_before_it_starts_again(tmp_path: Path) -> None:
    sleep = "import time; time.sleep(60)"
    child = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {sleep!r}]); print(p.pid, flush=True)"
    process = part(tmp_path, f"{child}; {sleep}")
    process.start()
    until(lambda: process.log.read_text().strip())
    assert process.last_error is None
    left, pid = int(process.log.read_text()), process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    watch(process, "restarting")
    assert process.last_error == f"killed by SIGKILL; its log {process.log} does not say why", "it had no last words"
    assert not psutil.pid_exists(left)
    process.signal()
    process.await_stop()


def test_a_part_with_children_can_be_asked_to_stop_with_them(tmp_path: Path) -> None:
    waits = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(print('child ends', flush=True)))"
    child = f"{waits}; print('up', flush=True); time.sleep(60)"
    # As a code server: it ends once its children have.
    run = f"subprocess.run([sys.executable, '-c', {child!r}])"
    parent = f"import signal, subprocess, sys; signal.signal(15, lambda *_: None); {run}"
    process = part(tmp_path, parent, stop_session=True)
    process.start()
    until(lambda: "up" in process.log.read_text())
    process.signal()
    process.await_stop()
    assert "child ends" in process.log.read_text()
    assert process.last_error is None


def test_a_part_that_does_not_stop_is_killed_with_all_of_its_session(tmp_path: Path) -> None:
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {_STUBBORN!r}]); {_STUBBORN}"
    parent = part(tmp_path, child, stop_seconds=0.5)
    parent.start()
    until(lambda: parent.log.read_text().count("up") == 2)
    pids = [parent.pid, *(process.pid for process in psutil.Process(parent.pid).children())]
    assert len(pids) == 2
    parent.signal()
    parent.await_stop()
    assert "was killed" in str(parent.last_error)
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)


def test_a_server_that_is_given_is_external_and_left_alone(tmp_path: Path) -> None:
    process = Part(Spec("kafka", "elsewhere:9092"), tmp_path)
    process.watch()
    process.signal()
    process.await_stop()
    assert process.state == "external"


def test_ports() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert accepts("127.0.0.1", port)
        assert not can_bind("127.0.0.1", port)
        assert f"(pid {os.getpid()})" in str(listener(port))
    assert not accepts("127.0.0.1", port)
    assert can_bind("127.0.0.1", port)
    assert listener(port) is None


def test_words(tmp_path: Path) -> None:
    assert describe_exit(-signal.SIGKILL) == "killed by SIGKILL"
    assert last_line(tmp_path / "none") == ""
    (tmp_path / "log").write_text("one\ntwo\n\n")
    assert last_line(tmp_path / "log") == "two"
    assert last_line(tmp_path / "log", 1_000_000) == "two", "the log was cut off"


def test_a_session_may_end_by_itself_first() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    time.sleep(0.2)
    began = time.monotonic()
    end_session(process.pid, seconds=20)
    assert time.monotonic() - began < 10
    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize("pid", [999_999_999])
def test_a_session_that_is_gone_is_no_error(pid: int) -> None:
    end_session(pid)
