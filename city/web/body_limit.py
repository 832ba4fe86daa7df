"""Limits the size and the time of a request's body, and unpacks gzip."""

import asyncio
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from city.settings import Settings
from city.web.decoders import THREAD_BYTES
from city.web.gunzip import Gunzip
from city.web.problems import Problem

_BODILESS = ("GET", "HEAD", "OPTIONS")


class BodyLimit:
    """Limits bodies by CITY_MAX_BODY_MB and CITY_BODY_SECONDS. Only paths that take many rows may have large ones."""

    def __init__(self, config: Settings) -> None:
        self._most_bytes, self._seconds = int(config.max_body_mb * 1_000_000), config.body_seconds

    def limit(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> Receive:
        """`receive` with limits for the size and the time of the body; it unpacks gzip. Raises Problem."""
        max_bytes, seconds = self._most_bytes, self._seconds
        if not _takes_many(scope["path"]):
            max_bytes = min(max_bytes, THREAD_BYTES)
        length = headers.get("content-length")
        if length is not None and length.isdigit() and int(length) > max_bytes:
            raise _too_large(max_bytes)
        if scope["method"] in _BODILESS:
            return receive
        received, ends = 0, asyncio.get_running_loop().time() + seconds
        complete = False

        async def bounded() -> Message:
            nonlocal received, complete
            if complete:  # after the body comes the end of the connection, which has no time limit
                return await receive()
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError:
                raise Problem(
                    408, f"the body was not here after {seconds:g} s", headers={"connection": "close"}
                ) from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > max_bytes:
                raise _too_large(max_bytes)
            return message

        if "content-encoding" not in headers:
            return bounded
        encoding = ", ".join(Headers(scope=scope).getlist("content-encoding")).strip().lower()
        if encoding in ("", "identity"):
            return bounded
        if encoding not in ("gzip", "x-gzip"):
            raise Problem(
                415,
                f"a body of the encoding {encoding[:60]!r} is not read here: send it plain, or as gzip",
                headers={"accept-encoding": "gzip"},
            )
        packed = (b"content-encoding", b"content-length")
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in packed]
        return Gunzip(bounded, max_bytes, _too_large(max_bytes)).receive


def _takes_many(path: str) -> bool:
    """Whether the body may have many rows. All other bodies are read at once, and so must be small."""
    return (
        path == "/predict/batch"
        or path.startswith("/ingest/")
        or (path.startswith("/v2/models/") and path.endswith("/infer"))
    )


def _too_large(most_bytes: int) -> Problem:
    return Problem(
        413,
        f"a request to this path may have {most_bytes / 1e6:g} MB: send many rows to /predict/batch, or in parts "
        "(CITY_MAX_BODY_MB bounds those)",
        headers={"connection": "close"},
    )
