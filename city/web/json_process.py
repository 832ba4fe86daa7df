"""The process that reads the largest JSON bodies. Python's parsers hold the interpreter's lock from the first byte to
the last: in the server's own process, 20 MB of JSON would stop every other answer meanwhile."""

import contextlib
import logging
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from city.web.problems import Problem

log = logging.getLogger(__name__)

Made = TypeVar("Made")
_IDLE_SECONDS = 60.0
"""It ends after so long without a body, and gives its memory back."""
_DEADLINE_SECONDS = 60.0
"""20 MB take about a second. Bodies wait for each other, so one that does not end must not hold up the rest."""
_LAST_SECONDS = 5.0
_PIPE_BYTES = 1 << 20
_NICE = 5  # small requests come first
_NO_MEMORY = "this body could not be read: it may take more memory than there is; send it in parts"


class JsonProcess:
    """The process, from the server's side. It is started by the first body, and again where it has ended. One thread
    at a time may call `run`, any thread `close`."""

    def __init__(self, idle_seconds: float = _IDLE_SECONDS, deadline_seconds: float = _DEADLINE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self.deadline_seconds = deadline_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._closed, self._starting = False, threading.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def run(self, read: Callable[..., Made], body: bytes, *arguments: object) -> Made:
        """What `read(body, *arguments)` returns or raises. Raises Problem where the process cannot do it, or takes
        longer than the deadline."""
        call = pickle.dumps((read, arguments))
        for _ in range(2):
            process, late = self._started(), False
            try:
                answer = _exchanged(process, call, body, time.monotonic() + self.deadline_seconds)
            except TimeoutError:
                answer, late = b"", True
                process.kill()
            if answer:
                result, error = pickle.loads(answer)
                if error is not None:
                    raise error
                made: Made = result
                return made
            self._process = None
            code = _end(process)
            if late:
                log.error("a JSON body of %d bytes was not read within %g s", len(body), self.deadline_seconds)
                raise Problem(503, f"this body was not read within {self.deadline_seconds:g} s: send it in parts")
            if code and not self._closed:
                log.error("the process that reads large JSON bodies ended with code %d at %d bytes", code, len(body))
                break
            # It had just ended, because nothing came for long.
        raise Problem(503, _NO_MEMORY)

    def close(self) -> None:
        """Ends the process at once, in the middle of a body too; no other one is read. The process ends by itself when
        the server is gone."""
        with self._starting:
            self._closed = True
            process = self._process
        if process is not None:
            process.kill()
            process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._starting:
            if self._closed:
                raise Problem(503, "the server is stopping: send this body again")
            if self._process is None or self._process.poll() is not None:
                argv = [sys.executable, "-m", "city.web.json_process", str(self._idle_seconds)]
                try:
                    self._process = _start(argv)
                except OSError as error:
                    log.error("the process that reads large JSON bodies cannot start: %s", error)
                    detail = "so large a body cannot be read now: send it in parts of at most 1 MB"
                    raise Problem(503, detail) from None
            return self._process


def _start(argv: list[str]) -> subprocess.Popen[bytes]:
    """With pipes that are never waited for without a deadline."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    for pipe in (process.stdin, process.stdout):
        os.set_blocking(pipe.fileno(), False)
    return process


def _end(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, once it has ended."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # what was not written, to a process that is gone
        process.stdin.close()
    try:
        return process.wait(_LAST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _exchanged(process: subprocess.Popen[bytes], call: bytes, body: bytes, until: float) -> bytes:
    """The process's answer; empty where it has ended. Raises TimeoutError at `until`, of the monotonic clock."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for part in (b"%d %d\n" % (len(call), len(body)), call, body):
            _write(process.stdin.fileno(), part, until)
        size, _, answer = _read(process.stdout.fileno(), until).partition(b"\n")
        parts = [answer]
        missing = int(size or 0) - len(answer)
        while missing > 0 and (part := _read(process.stdout.fileno(), until)):
            parts.append(part)
            missing -= len(part)
    except TimeoutError:
        raise
    except OSError:
        return b""
    return b"" if missing else b"".join(parts)


def _write(pipe: int, data: bytes, until: float) -> None:
    rest = memoryview(data)
    while rest:
        _wait(pipe, select.POLLOUT, until)
        rest = rest[os.write(pipe, rest) :]


def _read(pipe: int, until: float) -> bytes:
    """What is there; empty at the end."""
    _wait(pipe, select.POLLIN, until)
    return os.read(pipe, _PIPE_BYTES)


def _wait(pipe: int, event: int, until: float) -> None:
    """Raises TimeoutError. By poll, for the server may have more than a thousand descriptors."""
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise TimeoutError


def serve(source: BinaryIO, answers: BinaryIO, idle_seconds: float) -> None:
    """Reads body after body, until the server ends or none has come for long."""
    while select.select([source], [], [], idle_seconds)[0] and (head := source.readline()):
        sizes = [int(size) for size in head.split()]
        call, body = (source.read(size) for size in sizes)
        if [len(call), len(body)] != sizes:
            return  # the server was killed in the middle of it
        read, arguments = pickle.loads(call)
        answer = pickle.dumps(_result(read, body, arguments), protocol=5)
        del body
        answers.write(b"%d\n" % len(answer))
        answers.write(answer)
        answers.flush()


def _result(read: Callable[..., Any], body: bytes, arguments: tuple[object, ...]) -> tuple[Any, Exception | None]:
    try:
        return read(body, *arguments), None
    except Problem as problem:
        return None, problem
    except MemoryError:
        log.error("a JSON body of %d bytes takes more memory than there is", len(body))
        return None, Problem(503, _NO_MEMORY)
    except Exception as error:  # the server answers 500, and its log says what it was
        return None, RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal; the server says when it is over
    os.nice(_NICE)
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    serve(sys.stdin.buffer, told, float(sys.argv[1]))
