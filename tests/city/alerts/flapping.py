"""A thousand causes that flap for an hour of simulated time, and a dispatcher that sends what is due meanwhile, in a
process that may be killed at any moment. Another one goes on from there, as the alarm reader does: which round was
reported is kept by the transaction that reports it.
"""

import contextlib
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection

from city.alerts.dispatch import DeliveryResult, deliver
from city.alerts.model import Finding
from city.alerts.store import AlertStore, alert_store
from city.settings import Settings

BEGIN = datetime(2026, 5, 4, 12, tzinfo=UTC)
CAUSES, CHANGING, ERROR_EVERY = 1_000, 200, 20
HOUR = range(0, 60, 3)
MINUTES = (*HOUR, *range(60, 121, 15))
"""When there are looks: in the hour a fifth of the causes change between two of them, and in the next none does."""
_LEASES_OVER = timedelta(minutes=2)
_ROUND, _ALL_TOLD = "round", len(MINUTES)
_FORK = get_context("forkserver")  # a life begins in some milliseconds, with all imported
_FORK.set_forkserver_preload([__name__])


def cause(number: int) -> str:
    return f"domain/flapping/{number:03}"


def failing() -> list[set[int]]:
    """The numbers of the causes that fail, at each of MINUTES."""
    chance, now, findings = random.Random(7), set[int](), []
    for minute in MINUTES:
        if minute in HOUR:
            now = now ^ {*chance.sample(range(CAUSES), CHANGING)}
        findings.append(now)
    return findings


def changes() -> dict[str, list[tuple[float, str]]]:
    """The history that each cause is to have: when it was raised or cleared (Unix seconds)."""
    events, before = dict[str, list[tuple[float, str]]](), set[int]()
    for minute, wrong in zip(MINUTES, failing(), strict=True):
        for number in wrong ^ before:
            entries = events.setdefault(cause(number), [])
            event = ("raised again" if entries else "raised") if number in wrong else "cleared"
            entries.append(((BEGIN + timedelta(minutes=minute)).timestamp(), event))
        before = wrong
    return events


def look(kept: AlertStore, number: int, wrong: set[int]) -> datetime:
    """The look of a round; its time."""
    at = BEGIN + timedelta(minutes=MINUTES[number])
    findings = [
        Finding(cause(n), "error" if n % ERROR_EVERY == 0 else "warning", f"cause {n}", f"g{n // 100}", state=state)
        for state in ("failing", "passing")
        for n in range(CAUSES)
        if (n in wrong) == (state == "failing")
    ]
    kept.sync_findings(findings, None, at, {_ROUND: number})
    kept.tick(now=at)
    return at


def _live(config: Settings, earlier_lives: int, progress: Connection) -> None:
    kept, news = alert_store(config), threading.Event()
    done = kept.remembered(_ROUND)
    # A look that was killed may have reported without letting time pass; what it had leased is due a minute later.
    now, ended = [BEGIN], threading.Event()

    def write() -> None:
        if done is not None:
            now[0] = BEGIN + timedelta(minutes=MINUTES[done])
            kept.tick(now=now[0])
        for round_number, wrong in enumerate(failing()):
            if done is None or round_number > done:
                progress.send(round_number)
                now[0] = look(kept, round_number, wrong)
                news.set()
        # A life may be killed even here, while it has leased the last messages. The next one looks later still.
        now[0] += (earlier_lives + 1) * _LEASES_OVER
        ended.set()
        news.set()

    threading.Thread(target=write, daemon=True).start()
    is_over = False
    while not is_over:
        news.wait()
        news.clear()
        is_over = ended.is_set()  # read before the delivery, which then has all that was reported
        while deliver(kept, config, now[0]) != DeliveryResult():
            pass
    progress.send(_ALL_TOLD)
    threading.Event().wait()  # until it is killed


class Life:
    """Such a process, from its start until it is killed. `earlier_lives` is how many have lived before it."""

    def __init__(self, config: Settings, earlier_lives: int) -> None:
        self._progress, given = _FORK.Pipe(duplex=False)
        self.process = _FORK.Process(target=_live, args=(config, earlier_lives, given), daemon=True)
        self.process.start()
        given.close()

    def await_round(self, number: int, seconds: float = 60.0) -> None:
        """Until it begins with that round, or is beyond it. So long may pass between two rounds."""
        while True:
            assert self._progress.poll(seconds), f"round {number} has not begun within {seconds:g} s"
            if self._progress.recv() >= number:
                return

    def await_all_told(self) -> None:
        self.await_round(_ALL_TOLD, 180.0)

    def kill(self, after: float = 0.0) -> None:
        """SIGKILL, so many seconds from now."""
        self.process.join(after)
        self.process.kill()
        self.process.join()


@contextlib.contextmanager
def life(config: Settings, earlier_lives: int) -> Iterator[Life]:
    made = Life(config, earlier_lives)
    try:
        yield made
    finally:
        made.kill()
