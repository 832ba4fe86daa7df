"""A load generator in a process of its own: so many connections, each of which asks again as soon as it is answered.

    python -m benchmarks._load PORT FILE SECONDS CONNECTIONS

FILE holds whole HTTP/1.1 requests, each after its length (4 bytes). Prints one JSON line.
"""

import asyncio
import gc
import json
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import cast

import httptools
import numpy as np
import uvloop

WARM_UP = 2.0


class Connection(asyncio.Protocol):
    """Asks, waits for the whole answer, asks again."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._parser = httptools.HttpResponseParser(self)
        self._sent = 0.0
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body = body

    def on_message_complete(self) -> None:
        self._load.answered(time.perf_counter() - self._sent, self._parser.get_status_code(), self._body)
        self._parser = httptools.HttpResponseParser(self)
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._load.over:
            self._load.lost += 1
            self._load.connect()

    def _ask(self) -> None:
        if self._load.over:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(next(self._load.requests))


class Load:
    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.port, self.requests = port, cycle(requests)
        self.over = False
        self.lost = 0
        self.took: list[float] = []
        self.failed: dict[str, int] = {}
        self._counting = False
        self._tasks: set[asyncio.Task[object]] = set()

    def answered(self, seconds: float, status: int, body: bytes) -> None:
        if status != 200:
            reason = f"{status}: {body[:200].decode(errors='replace')}"
            self.failed[reason] = self.failed.get(reason, 0) + 1
        if self._counting:
            self.took.append(seconds)

    def connect(self) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, seconds: float, connections: int) -> dict[str, object]:
        for _ in range(connections):
            self.connect()
        await asyncio.sleep(WARM_UP)
        self._counting = True
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        self._counting = False
        ended = time.perf_counter()
        self.over = True
        await asyncio.sleep(0.2)
        if not self.took:
            raise RuntimeError(f"nothing was answered: {self.failed}")
        took = np.array(self.took) * 1000
        return {
            "rps": len(self.took) / (ended - began),
            "p50_ms": float(np.quantile(took, 0.5)),
            "p99_ms": float(np.quantile(took, 0.99)),
            "answers": len(self.took),
            "failed": sum(self.failed.values()) + self.lost,
            "reasons": dict(list(self.failed.items())[:3]),
        }


def read(path: Path) -> list[bytes]:
    content, bodies, at = path.read_bytes(), [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        bodies.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return bodies


if __name__ == "__main__":
    gc.disable()  # its own pauses would be taken for the server's
    load = Load(int(sys.argv[1]), read(Path(sys.argv[2])))
    print(json.dumps(uvloop.run(load.run(float(sys.argv[3]), int(sys.argv[4])))))
