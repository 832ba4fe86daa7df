"""Many WebSocket clients in a process of their own, and some that never read.

    python -m benchmarks._listen URL SECONDS CLIENTS STUCK

Prints one JSON line: milliseconds from a delta's making to its arrival, over all clients, and whether any missed one.
"""

import asyncio
import json
import re
import socket
import sys
import time
from urllib.parse import urlsplit

import numpy as np
import uvloop
import websockets

_HEAD = re.compile(r'"type":"(\w+)","epoch":"\w+","seq":(\d+),"at":(\d+)')
_AT_ONCE = 50


class Client:
    def __init__(self) -> None:
        self.took: list[float] = []
        self.missed = self.snapshots = 0
        self.lost = False

    async def listen(self, url: str, over: asyncio.Event, connected: asyncio.Semaphore) -> None:
        async with connected:
            socket = await websockets.connect(url, max_size=None, compression=None, open_timeout=30)
        last = None
        try:
            while not over.is_set():
                try:
                    text = await asyncio.wait_for(socket.recv(), 2.5)
                except TimeoutError:
                    self.missed += 1  # the server speaks twice a second
                    continue
                now = time.time() * 1000
                head = _HEAD.search(str(text[:200]))
                assert head is not None
                kind, seq, at = head[1], int(head[2]), int(head[3])
                if kind == "snapshot":
                    self.snapshots += 1
                else:
                    self.took.append(now - at)
                    self.missed += last is not None and seq != last + 1
                last = seq
        except websockets.ConnectionClosed:
            self.lost = True
        finally:
            await socket.close()


def stuck(url: str) -> socket.socket:
    """Shakes hands, and never reads again."""
    parts = urlsplit(url)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.connect((parts.hostname, parts.port))
    head = (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    made.sendall(head.encode())
    return made


async def run(url: str, seconds: float, count: int, never_read: int) -> dict[str, object]:
    held = [stuck(url) for _ in range(never_read)]
    clients = [Client() for _ in range(count)]
    over, gate = asyncio.Event(), asyncio.Semaphore(_AT_ONCE)
    tasks = [asyncio.create_task(client.listen(url, over, gate)) for client in clients]
    while not all(client.snapshots for client in clients):
        await asyncio.sleep(0.1)
        for task in tasks:
            if task.done():
                task.result()
    for client in clients:
        client.took.clear()
    await asyncio.sleep(seconds)
    over.set()
    await asyncio.gather(*tasks)
    for one in held:
        one.close()
    took = np.concatenate([client.took for client in clients])
    return {
        "clients": count,
        "stuck": never_read,
        "deltas": len(took),
        "least": min(len(client.took) for client in clients),
        "p50_ms": float(np.quantile(took, 0.5)),
        "p95_ms": float(np.quantile(took, 0.95)),
        "p99_ms": float(np.quantile(took, 0.99)),
        "missed": sum(client.missed for client in clients),
        "lost": sum(client.lost for client in clients),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))))
