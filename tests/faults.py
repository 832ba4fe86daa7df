"""The table of faults that tests print: what was done, what the city said of it, and what was lost."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.live import until


@dataclass(frozen=True)
class Fault:
    """A row of the table. `channel` is how people were told; `lost` counts what was sent and is nowhere."""

    fault: str
    reported: str
    seconds: float
    lost: int
    channel: str


class FaultTable:
    """Rows that the tests add; printed when the last of them is done."""

    def __init__(self) -> None:
        self.rows: list[Fault] = []

    def watch(self, holds: Callable[[], Any], seconds: float = 60) -> tuple[Any, float]:
        """What is reported, and how long it took."""
        began = time.monotonic()
        return until(holds, seconds), time.monotonic() - began

    def add(self, fault: str, reported: str, seconds: float, lost: int, channel: str = "status") -> None:
        self.rows.append(Fault(fault, reported, seconds, lost, channel))
        assert lost == 0, f"{fault}: {lost} lost"

    def show(self) -> None:
        wide, channel = (
            max(len(text) for text in of) for of in zip(*((r.fault, r.channel) for r in self.rows), strict=True)
        )
        print(f"\n\n{'fault':{wide}}  {'on':{channel}}  after s  lost  reported")
        for row in self.rows:
            print(f"{row.fault:{wide}}  {row.channel:{channel}}  {row.seconds:7.1f}  {row.lost:4}  {row.reported}")
