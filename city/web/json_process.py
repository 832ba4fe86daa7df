"""The process that reads the largest JSON bodies. Python's parsers keep the interpreter's lock from the first byte to
the last. In the server's own process, 20 MB of JSON would delay every other answer."""

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
from typing import BinaryIO, TypeVar

from city.web.problems import Problem

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_IDLE_SECONDS = 60.0
"""The process ends after so long without a body, and gives its memory back."""
_DEADLINE_SECONDS = 60.0
"""20 MB take about a second. Bodies wait for each other, so a body that does not end must not delay the rest."""
_LAST_SECONDS = 5.0
_PIPE_BYTES = 1 << 20
_NICE = 5  # small requests come first
_NO_MEMORY = "this body could not be read: it may take more memory than there is; send it in parts"


class JsonProcess:
    """The process, from the server's side. The first body starts it, and a later one restarts it where it has ended.
    Only one thread at a time may call `run`; any thread may call `close`."""

    def __init__(self, idle_seconds: float = _IDLE_SECONDS, deadline_seconds: float = _DEADLINE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self.deadline_seconds = deadline_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._closed, self._starting = False, threading.Lock()

    @property
    def pid(self) -> int | None:
        """The id of the process that was started last; None where there is none."""
        return self._process.pid if self._process else None

    def run(self, read: Callable[..., Result], body: bytes, *arguments: object) -> Result:
        """Calls `read(body, *arguments)` in the process, and returns or raises what that does.

        Raises Problem where the process cannot do it, or takes longer than the deadline.
        """
        call = pickle.dumps((read, arguments))
        for _ in range(2):
            process, late = self._running_process(), False
            try:
                answer = _exchange(process, call, body, time.monotonic() + self.deadline_seconds)
            except TimeoutError:
                answer, late = b"", True
                process.kill()
            if answer:
                result, error = pickle.loads(answer)
                if error is not None:
                    raise error
                value: Result = result
                return value
            self._process = None
            code = _end_process(process)
            if late:
                log.error("a JSON body of %d bytes was not read within %g s", len(body), self.deadline_seconds)
                raise Problem(503, f"this body was not read within {self.deadline_seconds:g} s: send it in parts")
            if code and not self._closed:
                log.error("the process that reads large JSON bodies ended with code %d at %d bytes", code, len(body))
                break
            # The process had just ended, because no body came for long.
        raise Problem(503, _NO_MEMORY)

    def close(self) -> None:
        """Ends the process at once, even while it reads a body. No other body is read after that. When the server is
        gone, the process ends by itself."""
        with self._starting:
            self._closed = True
            process = self._process
        if process is not None:
            process.kill()
            process.wait()

    def _running_process(self) -> subprocess.Popen[bytes]:
        """The process, which is started where it does not run. Raises Problem (503)."""
        with self._starting:
            if self._closed:
                raise Problem(503, "the server is stopping: send this body again")
            if self._process is None or self._process.poll() is not None:
                argv = [sys.executable, "-m", "city.web.json_process", str(self._idle_seconds)]
                try:
                    self._process = _start_process(argv)
                except OSError as error:
                    log.error("the process that reads large JSON bodies cannot start: %s", error)
                    detail = "so large a body cannot be read now: send it in parts of at most 1 MB"
                    raise Problem(503, detail) from None
            return self._process


def _start_process(argv: list[str]) -> subprocess.Popen[bytes]:
    """Starts the process with non-blocking pipes, so that each wait for them has a deadline."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    for pipe in (process.stdin, process.stdout):
        os.set_blocking(pipe.fileno(), False)
    return process


def _end_process(process: subprocess.Popen[bytes]) -> int:
    """Ends the process. Returns its exit code."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # the rest of a body cannot be written to a process that is gone
        process.stdin.close()
    try:
        return process.wait(_LAST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _exchange(process: subprocess.Popen[bytes], call: bytes, body: bytes, until: float) -> bytes:
    """Sends a call and a body. Returns the answer of the process; empty where the process has ended.

    Raises TimeoutError at `until`, a time of the monotonic clock in seconds.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for part in (b"%d %d\n" % (len(call), len(body)), call, body):
            _write_pipe(process.stdin.fileno(), part, until)
        size, _, answer = _read_pipe(process.stdout.fileno(), until).partition(b"\n")
        parts = [answer]
        missing = int(size or 0) - len(answer)
        while missing > 0 and (part := _read_pipe(process.stdout.fileno(), until)):
            parts.append(part)
            missing -= len(part)
    except TimeoutError:
        raise
    except OSError:
        return b""
    return b"" if missing else b"".join(parts)


def _write_pipe(pipe: int, data: bytes, until: float) -> None:
    rest = memoryview(data)
    while rest:
        _wait_for_pipe(pipe, select.POLLOUT, until)
        rest = rest[os.write(pipe, rest) :]


def _read_pipe(pipe: int, until: float) -> bytes:
    """The bytes that are available; empty at the end of the pipe."""
    _wait_for_pipe(pipe, select.POLLIN, until)
    return os.read(pipe, _PIPE_BYTES)


def _wait_for_pipe(pipe: int, event: int, until: float) -> None:
    """Waits for an event of a pipe. Raises TimeoutError. It uses poll rather than select, because the server may have
    more than a thousand descriptors."""
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise TimeoutError


def serve(source: BinaryIO, answers: BinaryIO, idle_seconds: float) -> None:
    """Reads bodies in the process, until the server ends or no body comes for `idle_seconds`."""
    while select.select([source], [], [], idle_seconds)[0] and (head := source.readline()):
        sizes = [int(size) for size in head.split()]
        call, body = (source.read(size) for size in sizes)
        if [len(call), len(body)] != sizes:
            return  # the server was killed while it sent the body
        read, arguments = pickle.loads(call)
        answer = pickle.dumps(_read_body(read, body, arguments), protocol=5)
        del body
        answers.write(b"%d\n" % len(answer))
        answers.write(answer)
        answers.flush()


def _read_body(
    read: Callable[..., object], body: bytes, arguments: tuple[object, ...]
) -> tuple[object, Exception | None]:
    """The result of `read` and None, or None and its error."""
    try:
        return read(body, *arguments), None
    except Problem as problem:
        return None, problem
    except MemoryError:
        log.error("a JSON body of %d bytes takes more memory than there is", len(body))
        return None, Problem(503, _NO_MEMORY)
    except Exception as error:  # the server answers 500, and logs the error
        return None, RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    # Ctrl-C reaches all processes of a terminal; only the server decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # text that a library prints is no answer
    serve(sys.stdin.buffer, answers, float(sys.argv[1]))
