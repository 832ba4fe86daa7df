"""Who may come in, how often and with how much: one ASGI layer before everything else, for HTTP and WebSocket."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from city.serving.keys import LOCAL, NOBODY, Caller, Keys, Tokens
from city.serving.problems import Problem, fault
from city.settings import Settings

log = logging.getLogger(__name__)

_OPEN = ("/health/", "/v2/health/", "/token", "/assets/", "/docs", "/openapi.json")
"""What needs no key: whether we live, how to get a token, the pages themselves (their data needs one)."""
_PAGES = ("/", "/index.html", "/dashboard", "/favicon.svg", "/basemap.json", "/api/config", "/health")
_SAFE = ("GET", "HEAD", "OPTIONS")
_BUCKETS = 10_000
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
PROTOCOL = "city.bearer"
"""A browser cannot set a header on a WebSocket: it offers this subprotocol, and its token as the next one."""


class Guard:
    """Host and origin, size and time of the body, who it is, and how often."""

    def __init__(self, app: ASGIApp, config: Settings, keys: Keys, tokens: Tokens) -> None:
        self._app, self._config = app, config
        self._keys, self._tokens = keys, tokens
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()
        self._most_bytes = int(config.max_body_mb * 1_000_000)
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
        secure = self._securing(send, answered) if http else send
        try:
            headers = Headers(scope=scope)
            self._check_host(scope, headers)
            scope["caller"] = self._caller(scope, headers)
            if http:
                receive = self._bounded(scope, headers, receive)
            await self._app(scope, receive, secure)
        except Problem as problem:
            if not answered:
                await self._refuse(problem, scope, receive, secure)
        except Exception as error:  # whatever the app let through: the server stays up
            if not http:
                raise
            if not answered:
                await fault(error, scope["path"])(scope, receive, secure)

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        """Without keys, a page of another site must not reach us, neither by a name that it makes point here (DNS
        rebinding) nor by asking straight away."""
        origin = headers.get("origin")
        host = headers.get("host", "")
        if not self._config.wants_keys and host.rsplit(":", 1)[0] not in (*_LOOPBACK, self._config.host):
            raise Problem(403, f"the host {host[:100]!r} is not this server: ask for {self._config.serve}")
        if origin is None or origin in self._config.cors_origins or urlsplit(origin).netloc == host:
            return
        if scope["type"] == "websocket" or scope["method"] not in _SAFE:
            raise Problem(403, "pages of other sites may not do this; name theirs in CITY_CORS_ORIGINS to let them")

    def _caller(self, scope: Scope, headers: Headers) -> Caller:
        caller = self._named(scope, headers)
        if caller is None:
            if self._config.wants_keys and not _is_open(scope):
                raise Problem(
                    401,
                    "this server wants a key: send it as X-API-Key, or a token as Authorization: Bearer. "
                    "`city keys add NAME` makes one",
                    headers={"www-authenticate": "Bearer"},
                )
            client = scope.get("client")
            self._limit(client[0] if client else "", self._config.rate_limit)
            return NOBODY if self._config.wants_keys else LOCAL
        if caller.expires is not None and caller.expires < time.time():
            raise Problem(
                401,
                "this key or token has expired: get another one",
                headers={"www-authenticate": 'Bearer error="invalid_token", error_description="expired"'},
            )
        self._limit(f"key:{caller.name}", caller.rate)
        return caller

    def _named(self, scope: Scope, headers: Headers) -> Caller | None:
        """By key or token; a bad one is refused even where none is wanted."""
        given = headers.get("x-api-key")
        authorization = headers.get("authorization")
        if given is None and authorization is not None:
            scheme, _, given = authorization.partition(" ")
            given = given.strip() if scheme.lower() == "bearer" else ""
        if given is None and scope["type"] == "websocket":
            offered = scope.get("subprotocols", [])
            given = offered[1] if len(offered) == 2 and offered[0] == PROTOCOL else None
        if given is None:
            return None
        caller = self._keys.of(given) or (self._tokens.of(given) if given.count(".") == 2 else None)
        if caller is None:
            raise Problem(
                401,
                "this key or token is not known here: was it revoked, or cut off when it was copied?",
                headers={"www-authenticate": 'Bearer error="invalid_token"'},
            )
        return caller

    def _limit(self, who: str, rate: float) -> None:
        """A token bucket of one second's requests, at least ten."""
        if not rate:
            return
        now, most = time.monotonic(), max(10.0, rate)
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = self._buckets[who] = [most, now]
            if len(self._buckets) > _BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(who)
        bucket[0] = min(most, bucket[0] + (now - bucket[1]) * rate)
        bucket[1] = now
        if bucket[0] < 1:
            wait = (1 - bucket[0]) / rate
            raise Problem(
                429,
                f"more than {rate:g} requests a second; ask again after {wait:.2f} s",
                headers={"retry-after": str(max(1, round(wait)))},
            )
        bucket[0] -= 1

    def _bounded(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        most, seconds = self._most_bytes, self._config.body_seconds
        said = headers.get("content-length")
        if said is not None and said.isdigit() and int(said) > most:
            raise _too_large(self._config)
        if scope["method"] in _SAFE:
            return receive
        taken, ends = 0, asyncio.get_running_loop().time() + seconds
        complete = False

        async def bounded() -> Message:
            nonlocal taken, complete
            if complete:  # what follows the body is the end of the connection, for which one may wait
                return await receive()
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError:
                raise Problem(
                    408, f"the body was not here after {seconds:g} s", headers={"connection": "close"}
                ) from None
            taken += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if taken > most:
                raise _too_large(self._config)
            return message

        return bounded

    def _securing(self, send: Send, answered: list[bool]) -> Send:
        """With the headers, and a mark once an answer has begun: there can be no other then."""
        extra = self._headers

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.append(True)
                held = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in held)]
            await send(message)

        return secured

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
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
    found: Caller = connection.scope["caller"]
    return found


def needs(role: str) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """A FastAPI dependency: the caller, who must have that role or a higher one."""

    async def check(connection: HTTPConnection) -> Caller:
        caller = caller_of(connection)
        if not caller.may(role):
            raise Problem(403, f"this needs the role {role!r}; the key {caller.name!r} has {caller.role!r}")
        return caller

    return check


def policy(config: Settings) -> str:
    """The pages' content security policy: our own files, and the tiles' server where one is set."""
    tiles = ""
    if config.map_style_url:
        parts = urlsplit(config.map_style_url)
        tiles = f" {parts.scheme}://{parts.netloc} https:"
    return (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
        f"img-src 'self' data: blob:{tiles}; connect-src 'self'{tiles}; font-src 'self'{tiles}; object-src 'none'; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    )


def _is_open(scope: Scope) -> bool:
    path = scope["path"]
    return scope["type"] == "http" and (path in _PAGES or path.startswith(_OPEN))


def _too_large(config: Settings) -> Problem:
    return Problem(
        413,
        f"a request may have {config.max_body_mb:g} MB: send it in parts (CITY_MAX_BODY_MB)",
        headers={"connection": "close"},
    )
