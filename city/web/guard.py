"""Access control: one ASGI layer before everything else, for HTTP and WebSocket. It checks host, origin, key, rate and
size of each request."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from city.settings import Settings
from city.web.body_limit import BodyLimit
from city.web.keys import LOCAL, NOBODY, Caller, Keys, Tokens
from city.web.origins import OriginCheck
from city.web.problems import Problem, fault
from city.web.rate_limits import Buckets, FailedKeys, retry_after

log = logging.getLogger(__name__)

_OPEN = ("/health/", "/v2/health/", "/token", "/assets/", "/docs", "/openapi.json")
"""Paths that need no key: the health of the server, how to get a token, the pages themselves (their data needs one)."""
_PAGES = ("/", "/index.html", "/dashboard", "/favicon.svg", "/basemap.json", "/api/config", "/health")
_KEY_CHECK_SECONDS = 1.0
"""The time between two checks whether the key of an open WebSocket is still valid."""
PROTOCOL = "city.bearer"
"""A browser cannot set a header on a WebSocket. So it offers this subprotocol, and its token as the next one."""


class Guard:
    """Checks host and origin, the size and the time of the body, the caller's key or token, and the rate."""

    def __init__(self, app: ASGIApp, config: Settings, keys: Keys, tokens: Tokens, failed_keys: FailedKeys) -> None:
        self._app, self._config = app, config
        self._keys, self._tokens, self._failed_keys = keys, tokens, failed_keys
        self._buckets = Buckets()
        self._origins, self._bodies = OriginCheck(config), BodyLimit(config)
        self._wants_keys = config.wants_keys  # used by each request
        self._headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"permissions-policy", b"geolocation=(), camera=(), microphone=()"),
            (b"content-security-policy", policy(config).encode()),
        ]
        if config.tls_cert:
            self._headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        http = scope["type"] == "http"
        answered: list[bool] = []
        secure = self._with_headers(send, answered) if http else send
        try:
            headers = _first_values(scope)
            self._origins.check(scope, headers)
            scope["caller"] = self._authenticate(scope, headers)
            if http:
                receive = self._bodies.limit(scope, headers, receive)
                await self._app(scope, receive, secure)
            else:
                await self._serve_websocket(scope, headers, receive, send)
        except Problem as problem:
            if not answered:
                await self._send_problem(problem, scope, receive, secure)
        except Exception as error:  # any error that the app did not catch: the server continues
            if not http:
                raise
            if not answered:
                await fault(error, scope["path"])(scope, receive, secure)

    def _authenticate(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        """The caller of a request. Raises Problem for a wrong or missing key, and for too many requests."""
        credential = _read_credential(scope, headers)
        caller = self._find_caller(credential) if credential is not None else None
        if caller is None and credential is not None:
            self._failed_keys.count(client_of(scope))
            raise Problem(
                401,
                "this key or token is not known here: was it revoked, or cut off when it was copied?",
                headers={"www-authenticate": 'Bearer error="invalid_token"'},
            )
        if caller is None:
            if self._wants_keys and not _is_open(scope):
                raise Problem(
                    401,
                    "this server requires a key: send it as X-API-Key, or a token as Authorization: Bearer. "
                    "`city keys add NAME` creates one",
                    headers={"www-authenticate": "Bearer"},
                )
            self._check_rate(client_of(scope), self._config.rate_limit)
            return NOBODY if self._wants_keys else LOCAL
        if caller.expires is not None and caller.expires < time.time():
            raise Problem(
                401,
                "this key or token has expired: get another one",
                headers={"www-authenticate": 'Bearer error="invalid_token", error_description="expired"'},
            )
        self._check_rate(f"key:{caller.name}", caller.rate)
        return caller

    def _find_caller(self, credential: str) -> Caller | None:
        """The owner of a key or token; None for an unknown one. It may have expired."""
        return self._keys.caller_of(credential) or (
            self._tokens.caller_of(credential) if credential.count(".") == 2 else None
        )

    async def _serve_websocket(self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        """Serves a WebSocket for as long as the key that opened it is valid."""
        credential = _read_credential(scope, headers)
        if credential is None:
            await self._app(scope, receive, send)
            return
        serving = asyncio.ensure_future(self._app(scope, receive, send))
        watching = asyncio.create_task(self._until_invalid(credential))
        try:
            await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                with contextlib.suppress(Exception):  # the client may have gone meanwhile
                    await send({"type": "websocket.close", "code": 1008, "reason": watching.result()})
                serving.cancel()
                await asyncio.wait({serving})
            if not serving.cancelled():
                serving.result()
        finally:
            watching.cancel()
            serving.cancel()

    async def _until_invalid(self, credential: str) -> str:
        """Waits until the key or token is no longer valid. Returns the reason."""
        while True:
            await asyncio.sleep(_KEY_CHECK_SECONDS)
            caller = self._find_caller(credential)
            if caller is None:
                return "this key was revoked"
            if caller.expires is not None and caller.expires < time.time():
                return "this key or token has expired"

    def _check_rate(self, caller_key: str, rate: float) -> None:
        if rate and (wait := self._buckets.take(caller_key, rate)):
            raise Problem(
                429,
                f"more than {rate:g} requests a second; ask again after {wait:.2f} s",
                headers={"retry-after": retry_after(wait)},
            )

    def _with_headers(self, send: Send, answered: list[bool]) -> Send:
        """`send` with the security headers. It appends to `answered` once an answer has begun: then no other answer is
        possible."""
        extra = self._headers

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.append(True)
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in present)]
            await send(message)

        return secured

    async def _send_problem(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await problem.response()(scope, receive, send)
            return
        extensions = scope.get("extensions") or {}
        if "websocket.http.response" in extensions:
            answer = problem.response()
            headers = MutableHeaders(raw=answer.raw_headers)
            start = {"type": "websocket.http.response.start", "status": problem.status, "headers": headers.raw}
            await send(start)
            await send({"type": "websocket.http.response.body", "body": bytes(answer.body)})
        else:
            await send({"type": "websocket.close", "code": 1008})


def caller_of(connection: HTTPConnection) -> Caller:
    """The caller of a request, as the guard authenticated it."""
    caller: Caller = connection.scope["caller"]
    return caller


def needs(role: str) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """A FastAPI dependency: the caller, who must have that role or a higher one."""

    async def check(connection: HTTPConnection) -> Caller:
        caller = caller_of(connection)
        if not caller.may(role):
            raise Problem(403, f"this needs the role {role!r}; the key {caller.name!r} has {caller.role!r}")
        return caller

    return check


def policy(config: Settings) -> str:
    """The pages' content security policy: the server's own files, and the tile server where one is set."""
    tiles = ""
    if config.map_style_url:
        parts = urlsplit(config.map_style_url)
        tiles = f" {parts.scheme}://{parts.netloc} https:"
    return (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
        f"img-src 'self' data: blob:{tiles}; connect-src 'self'{tiles}; font-src 'self'{tiles}; object-src 'none'; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    )


def client_of(scope: Scope) -> str:
    """The address of the client. It is the proxy's address where the proxy is not in CITY_TRUSTED_PROXIES."""
    client = scope.get("client")
    return client[0] if client else ""


def _first_values(scope: Scope) -> dict[str, str]:
    """The first value of each header. Starlette's Headers searches all headers for each name, which took a twentieth of
    the time of a prediction."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def _read_credential(scope: Scope, headers: Mapping[str, str]) -> str | None:
    """The key or token of a request; None where there is none."""
    credential = headers.get("x-api-key")
    authorization = headers.get("authorization")
    if credential is None and authorization is not None:
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip() if scheme.lower() == "bearer" else ""
    if credential is None and scope["type"] == "websocket":
        offered = scope.get("subprotocols", [])
        credential = offered[1] if len(offered) == 2 and offered[0] == PROTOCOL else None
    return credential


def _is_open(scope: Scope) -> bool:
    path = scope["path"]
    return scope["type"] == "http" and (path in _PAGES or path.startswith(_OPEN))
