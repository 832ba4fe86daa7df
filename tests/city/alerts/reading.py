"""A process that reads a topic's messages for alarms, and is killed at one of its reports.

`python -m tests.city.alerts.reading TOPIC before|after NUMBER`: it kills itself before or after the transaction of its
so-manieth report that has findings. Of a number that does not come it reads until it is stopped.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from city.alerts.conditions import Condition, Persistence
from city.alerts.model import Finding
from city.alerts.reader import AlarmReader
from city.alerts.store import AlertStore, Changes
from city.settings import settings

HOT = Condition(
    domain="plant",
    kind="hot",
    description="An oven is too hot.",
    topic="",
    key="oven",
    level=lambda message, usual: message["degrees"] / 100,
    raised_by=(Persistence(level=1, count=2, messages=2),),
    clear_below=0.8,
    calm_for=timedelta(seconds=10),
    forgotten_after=timedelta(hours=1),
    title=lambda message: f"{message['oven']} has {message['degrees']} degrees",
    detail=lambda message: {"degrees": message["degrees"]},
)


def main(topic: str, when: str, number: int) -> None:
    sync, counted = AlertStore.sync_findings, 0

    def sync_and_die(store: AlertStore, findings: Iterable[Finding], *args: Any, **kwargs: Any) -> Changes:
        nonlocal counted
        findings = list(findings)
        counted += bool(findings)
        last = bool(findings) and counted == number
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = sync(store, findings, *args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    AlertStore.sync_findings = sync_and_die  # type: ignore[method-assign, assignment]
    AlarmReader(settings(), [replace(HOT, topic=topic)]).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
