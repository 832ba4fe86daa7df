"""Who listens to the live city. Each client has a place in the sequence of deltas, and nothing else is kept of it: one
that reads slowly falls behind by itself, and is given a snapshot instead of what it missed."""

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

KEPT = 240
"""Deltas, of half a second each, within which a client that comes back goes on where it was."""
_BEHIND = 20
_SEND_SECONDS = 20.0
_MOST_CLIENTS = 5_000
_MOST_IDLE_MESSAGES = 60


class Hub:
    """Used from the event loop only."""

    def __init__(self, snapshot: Callable[[], Delta], metrics: Metrics) -> None:
        self._snapshot, self._metrics = snapshot, metrics
        self.epoch = secrets.token_hex(4)
        """Of this process: another one counts its deltas anew."""
        self._deltas: OrderedDict[int, Delta] = OrderedDict()
        self._encoded: dict[tuple[int, tuple[str, ...] | None], str] = {}
        self._whole: tuple[int, tuple[str, ...] | None, str] | None = None
        self._changed = asyncio.Event()
        self._last = 0
        self.clients = 0

    def publish(self, delta: Delta) -> None:
        self._deltas[delta.sequence] = delta
        self._last = delta.sequence
        while len(self._deltas) > KEPT:
            self._deltas.popitem(last=False)
        self._encoded = {at: text for at, text in self._encoded.items() if at[0] > self._last - _BEHIND}
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def serve(self, socket: WebSocket, layers: tuple[str, ...] | None, since: int | None, epoch: str) -> None:
        """Until the client goes, or does not read for twenty seconds. With `since` and this process's `epoch` it goes
        on after that delta."""
        if self.clients >= _MOST_CLIENTS:
            await socket.close(1013, "too many clients: come back later")
            return
        self.clients += 1
        self._metrics.clients.set(self.clients)
        listening = asyncio.create_task(self._listen(socket))
        sending = asyncio.create_task(self._send(socket, layers, since if epoch == self.epoch else None))
        try:
            done, _ = await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.exception()) is not None and not isinstance(error, WebSocketDisconnect):
                    log.info("a client of the live city is gone: %r", error)
        finally:
            for task in (listening, sending):
                task.cancel()
            self.clients -= 1
            self._metrics.clients.set(self.clients)
            with contextlib.suppress(Exception):
                if socket.application_state is WebSocketState.CONNECTED:
                    async with asyncio.timeout(1):
                        await socket.close(1001)

    async def _listen(self, socket: WebSocket) -> None:
        """Nothing is expected but the end; a client that talks all the time is let go."""
        began, heard = time.monotonic(), 0
        while True:
            await socket.receive_text()
            heard += 1
            if heard > _MOST_IDLE_MESSAGES + (time.monotonic() - began):
                await socket.close(1008, "too many messages")
                return

    async def _send(self, socket: WebSocket, layers: tuple[str, ...] | None, since: int | None) -> None:
        position = since if since is not None and self._is_kept(since) else None
        patience = KEPT if position is not None else _BEHIND  # who comes back may have missed more
        while True:
            if position is None or self._last - position > patience:
                position, text = self._all(layers)
                await self._put(socket, text)
            elif position < self._last:
                position += 1
                await self._put(socket, self._delta(position, layers))
            else:
                patience = _BEHIND
                await self._changed.wait()

    def _is_kept(self, since: int) -> bool:
        return since <= self._last < since + len(self._deltas) + 1

    async def _put(self, socket: WebSocket, text: str) -> None:
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await socket.send({"type": "websocket.send", "text": text})
        except TimeoutError:
            self._metrics.dropped.inc()
            raise WebSocketDisconnect(1008, "does not read") from None

    def _all(self, layers: tuple[str, ...] | None) -> tuple[int, str]:
        whole = self._snapshot()
        if self._whole is None or self._whole[:2] != (whole.sequence, layers):
            self._whole = (whole.sequence, layers, _message("snapshot", self.epoch, whole, layers))
        return whole.sequence, self._whole[2]

    def _delta(self, sequence: int, layers: tuple[str, ...] | None) -> str:
        """Made once for all who ask for the same layers."""
        text = self._encoded.get((sequence, layers))
        if text is None:
            text = _message("delta", self.epoch, self._deltas[sequence], layers)
            self._encoded[sequence, layers] = text
        return text


def _message(kind: str, epoch: str, delta: Delta, layers: tuple[str, ...] | None) -> str:
    chosen = [b'"%s":%s' % (n.encode(), text) for n, text in delta.fragments.items() if not layers or n in layers]
    head = f'"type":"{kind}","epoch":"{epoch}","seq":{delta.sequence},"at":{delta.at}'
    return "{" + head + ',"layers":{' + b",".join(chosen).decode() + "}}"
