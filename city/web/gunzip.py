"""Unpacks a request's body that is sent as gzip (Content-Encoding), in pieces and never beyond the size limit."""

import asyncio
import zlib

from starlette.types import Message, Receive

from city.web.problems import Problem

_PIECE = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_WRONG = "the body is not whole gzip, as Content-Encoding says: send it plain, or compress it again"


class Gunzip:
    """Receives the unpacked body in messages of at most 256 KiB.

    `too_large` is raised once the unpacked body has more than `max_bytes`; the rest is never unpacked. Raises Problem
    (400) for a body that is not gzip.
    """

    def __init__(self, receive: Receive, max_bytes: int, too_large: Problem) -> None:
        self._receive, self._max_bytes, self._too_large = receive, max_bytes, too_large
        self._decoder = zlib.decompressobj(_GZIP)
        self._packed = b""
        self._may_have_more = False  # the last piece was full, so zlib may hold more of the same input
        self._has_begun = False
        self._body_ended = self._ended = False
        self._bytes = 0

    async def receive(self) -> Message:
        """The next message (ASGI's `receive`). Raises Problem (400), or `too_large`."""
        if self._ended:  # the next message is about the end of the connection
            return await self._receive()
        while True:
            await asyncio.sleep(0)  # other tasks run between two pieces
            if not self._packed and not self._may_have_more:
                if self._body_ended:
                    return self._end_body()
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._packed = message.get("body", b"")
                self._body_ended = not message.get("more_body", False)
                self._has_begun = self._has_begun or bool(self._packed)
                continue
            if piece := self._next_piece():
                return {"type": "http.request", "body": piece, "more_body": True}

    def _next_piece(self) -> bytes:
        if self._decoder.eof:  # another member follows in the same body (RFC 1952, 2.2)
            self._decoder = zlib.decompressobj(_GZIP)
        try:
            piece = self._decoder.decompress(self._packed, _PIECE)
        except zlib.error:
            raise Problem(400, _WRONG) from None
        self._packed = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
        self._may_have_more = len(piece) == _PIECE and not self._decoder.eof
        self._bytes += len(piece)
        if self._bytes > self._max_bytes:
            raise self._too_large
        return piece

    def _end_body(self) -> Message:
        if self._has_begun and not self._decoder.eof:
            raise Problem(400, _WRONG)
        self._ended = True
        return {"type": "http.request", "body": b"", "more_body": False}
