"""Large bodies are read and written beside the event loop, so that nobody else waits for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from city.web.json_process import JsonProcess

Made = TypeVar("Made")

INLINE_BYTES = 64 * 1024
"""Smaller JSON is read at once: that takes less time than a thread's wake-up."""
THREAD_BYTES = 1_000_000
"""Larger JSON is read by another process: a parser lets no other thread run before it is done, the event loop's
neither."""


class Decoders:
    """Two threads, so that no more than two bodies are unpacked at a time, however many have come; and a process for
    the largest ones, one at a time, which is started by the first of them."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, "decode")
        self._process, self._asking = JsonProcess(), ThreadPoolExecutor(1, "decode-large")

    async def run(self, job: Callable[[], Made], body_bytes: int = INLINE_BYTES + 1) -> Made:
        """What `job` returns or raises; run at once where its body is small."""
        if body_bytes <= INLINE_BYTES:
            return job()
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    async def read(self, read: Callable[..., Made], body: bytes, *arguments: object) -> Made:
        """What `read(body, *arguments)` returns or raises: a function of a module, whose arguments, result and errors
        can be pickled and are small beside the body. Raises Problem where the process cannot read the body."""
        if len(body) <= THREAD_BYTES:
            return await self.run(lambda: read(body, *arguments), len(body))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._asking, lambda: self._process.run(read, body, *arguments))

    def stop(self) -> None:
        """Ends the process at once. Large bodies that were not read yet are answered 503."""
        self._process.close()
        for pool in (self._pool, self._asking):
            pool.shutdown(wait=False)
