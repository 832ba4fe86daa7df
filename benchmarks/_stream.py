"""A streaming process of our own, as `city stream DOMAIN --take-over` runs it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from city.settings import Settings
from city.stack.embedded import environment
from city.stack.state import STREAM, read_json


class Stream:
    """Started at once; its log is `log`."""

    def __init__(self, config: Settings, log: Path, domain: str = "traffic") -> None:
        self.log = log
        self._config = config
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "city.cli.main", "stream", domain, "--take-over"],
                env=os.environ | environment(config),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def ended(self) -> bool:
        return self.process.poll() is not None

    def said(self, word: str) -> bool:
        return word in self.log.read_text(errors="replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As Ctrl-C does; killed when it does not end."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def await_rows(self, seconds: float = 60) -> None:
        """Until it has committed some. Raises TimeoutError, or RuntimeError when it ended."""
        deadline = time.monotonic() + seconds
        while not ((report := self._report()) and any(stream["rows"] for stream in report["streams"])):
            self._check(deadline, f"the stream committed nothing within {seconds:g} s: {report}")
            time.sleep(0.1)

    def await_caught_up(self, seconds: float = 120) -> None:
        """Until nothing is left in Kafka nor before any sink. Raises TimeoutError, or RuntimeError when it ended."""
        deadline = time.monotonic() + seconds
        quiet = 0
        while quiet < 3:
            report = self._report()
            done = report and all(s["lag"] == 0 and not any(s["sinks_behind"].values()) for s in report["streams"])
            quiet = quiet + 1 if done else 0
            self._check(deadline, f"the stream did not catch up within {seconds:g} s: {report}")
            time.sleep(1)

    def _report(self) -> dict[str, Any] | None:
        """What it says of itself, where that is not old."""
        report = read_json(self._config, STREAM)
        mine = report is not None and report["pid"] == self.process.pid and time.time() - report["at"] < 3
        return report if mine else None

    def _check(self, deadline: float, late: str) -> None:
        if self.ended():
            raise RuntimeError(f"the stream ended: {self.log.read_text(errors='replace')[-2000:]}")
        if time.monotonic() > deadline:
            raise TimeoutError(late)
