"""Reads and writes large bodies outside the event loop, so that no other request waits for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from city.web.json_process import JsonProcess

Result = TypeVar("Result")

INLINE_BYTES = 64 * 1024
"""JSON up to this size is read at once: that takes less time than a thread's wake-up."""
THREAD_BYTES = 1_000_000
"""Larger JSON is read by another process: a parser lets no other thread run before it ends, not even the event loop."""


class Decoders:
    """Reads bodies in threads and in a process.

    There are two threads, so that no more than two bodies are unpacked at a time, however many arrive. The process
    reads the largest bodies, one at a time. The first of them starts it.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, "decode")
        self._process, self._process_pool = JsonProcess(), ThreadPoolExecutor(1, "decode-large")

    async def run(self, job: Callable[[], Result], body_bytes: int = INLINE_BYTES + 1) -> Result:
        """Runs a job, at once where its body is small, otherwise in a thread. Returns or raises what the job does."""
        if body_bytes <= INLINE_BYTES:
            return job()
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    async def read(self, read: Callable[..., Result], body: bytes, *arguments: object) -> Result:
        """Reads a body with `read(body, *arguments)`, and returns or raises what that does.

        `read` is a function of a module. Its arguments, result and errors can be pickled and are small compared with
        the body. Raises Problem where the process cannot read the body.
        """
        if len(body) <= THREAD_BYTES:
            return await self.run(lambda: read(body, *arguments), len(body))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._process_pool, lambda: self._process.run(read, body, *arguments))

    def stop(self) -> None:
        """Ends the process at once. Requests whose large bodies are not read yet get the answer 503."""
        self._process.close()
        for pool in (self._pool, self._process_pool):
            pool.shutdown(wait=False)
