"""Large bodies are read and written beside the event loop, so that nobody else waits for them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")

INLINE_BYTES = 64 * 1024
"""Smaller JSON is read at once: that takes less time than a thread's wake-up."""


class Decoders:
    """Two threads, so that no more than two bodies are unpacked at a time, however many have come."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, "decode")

    async def run(self, job: Callable[[], Made], body_bytes: int = INLINE_BYTES + 1) -> Made:
        """What `job` returns or raises; run at once where its body is small."""
        if body_bytes <= INLINE_BYTES:
            return job()
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def stop(self) -> None:
        self._pool.shutdown(wait=False)
