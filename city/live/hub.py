"""The WebSocket clients of the live city. The hub keeps only one thing of a client: its position in the sequence of
deltas. A client that reads slowly falls behind, and gets a snapshot instead of the deltas that it missed."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from city.live.reader import Delta
from city.web.metrics import Metrics

log = logging.getLogger(__name__)

MAX_DELTAS = 240
"""How many deltas, of half a second each, are kept. A client that returns within them continues at its position."""
_BEHIND = 20
_SEND_SECONDS = 20.0
_MOST_CLIENTS = 5_000
_MOST_IDLE_MESSAGES = 60


class Hub:
    """Sends snapshots and deltas to clients. It may be used from the event loop only."""

    def __init__(self, snapshot: Callable[[], Delta], metrics: Metrics) -> None:
        self._snapshot, self._metrics = snapshot, metrics
        self.epoch = secrets.token_hex(4)
        """Identifies this process. Another process numbers its deltas from the beginning."""
        self._deltas: OrderedDict[int, Delta] = OrderedDict()
        self._encoded: dict[tuple[int, tuple[str, ...] | None], str] = {}
        self._encoded_snapshot: tuple[int, tuple[str, ...] | None, str] | None = None
        self._changed = asyncio.Event()
        self._last = 0
        self.clients = 0

    def publish(self, delta: Delta) -> None:
        """Adds a delta, and wakes the clients that wait for one."""
        self._deltas[delta.sequence] = delta
        self._last = delta.sequence
        while len(self._deltas) > MAX_DELTAS:
            self._deltas.popitem(last=False)
        self._encoded = {key: text for key, text in self._encoded.items() if key[0] > self._last - _BEHIND}
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def serve(self, socket: WebSocket, layers: tuple[str, ...] | None, since: int | None, epoch: str) -> None:
        """Serves a client until it disconnects, or does not read for twenty seconds.

        With `since` and this process's `epoch` it continues after that delta.
        """
        if self.clients >= _MOST_CLIENTS:
            await socket.close(1013, "too many clients: try again later")
            return
        self.clients += 1
        self._metrics.clients.set(self.clients)
        listening = asyncio.create_task(self._wait_for_end(socket))
        sending = asyncio.create_task(self._send_deltas(socket, layers, since if epoch == self.epoch else None))
        try:
            finished, _ = await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                if (error := task.exception()) is not None and not isinstance(error, WebSocketDisconnect):
                    log.info("the connection of a live client failed: %r", error)
        finally:
            for task in (listening, sending):
                task.cancel()
            self.clients -= 1
            self._metrics.clients.set(self.clients)
            with contextlib.suppress(Exception):
                if socket.application_state is WebSocketState.CONNECTED:
                    async with asyncio.timeout(1):
                        await socket.close(1001)

    async def _wait_for_end(self, socket: WebSocket) -> None:
        """Waits for the end of the connection. A client that sends too many messages is disconnected."""
        began, received = time.monotonic(), 0
        while True:
            await socket.receive_text()
            received += 1
            if received > _MOST_IDLE_MESSAGES + (time.monotonic() - began):
                await socket.close(1008, "too many messages")
                return

    async def _send_deltas(self, socket: WebSocket, layers: tuple[str, ...] | None, since: int | None) -> None:
        """Sends a snapshot, unless the client continues, and then deltas."""
        position = since if since is not None and self._has_deltas_since(since) else None
        patience = MAX_DELTAS if position is not None else _BEHIND  # a client that returns may have missed more
        while True:
            if position is None or self._last - position > patience:
                position, text = self._encode_snapshot(layers)
                await self._send_text(socket, text)
            elif position < self._last:
                position += 1
                await self._send_text(socket, self._encode_delta(position, layers))
            else:
                patience = _BEHIND
                await self._changed.wait()

    def _has_deltas_since(self, since: int) -> bool:
        return since <= self._last < since + len(self._deltas) + 1

    async def _send_text(self, socket: WebSocket, text: str) -> None:
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await socket.send({"type": "websocket.send", "text": text})
        except TimeoutError:
            self._metrics.dropped.inc()
            raise WebSocketDisconnect(1008, "does not read") from None

    def _encode_snapshot(self, layers: tuple[str, ...] | None) -> tuple[int, str]:
        """The number of the last delta in the snapshot, and the message."""
        snapshot = self._snapshot()
        if self._encoded_snapshot is None or self._encoded_snapshot[:2] != (snapshot.sequence, layers):
            self._encoded_snapshot = (
                snapshot.sequence,
                layers,
                _encode("snapshot", self.epoch, snapshot, layers),
            )
        return snapshot.sequence, self._encoded_snapshot[2]

    def _encode_delta(self, sequence: int, layers: tuple[str, ...] | None) -> str:
        """The message of a delta, which is made once for all clients with the same layers."""
        text = self._encoded.get((sequence, layers))
        if text is None:
            text = _encode("delta", self.epoch, self._deltas[sequence], layers)
            self._encoded[sequence, layers] = text
        return text


def _encode(kind: str, epoch: str, delta: Delta, layers: tuple[str, ...] | None) -> str:
    chosen = [b'"%s":%s' % (n.encode(), text) for n, text in delta.fragments.items() if not layers or n in layers]
    head = f'"type":"{kind}","epoch":"{epoch}","seq":{delta.sequence},"at":{delta.at}'
    return "{" + head + ',"layers":{' + b",".join(chosen).decode() + "}}"
