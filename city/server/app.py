"""Builds the server as one ASGI application, with all routes behind the guard."""

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Form, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRouter
from starlette.types import ASGIApp

from city.alerts.conditions import conditions
from city.contracts.registry import modules
from city.live.layers import layers
from city.models.model import Model, models
from city.server import alarms_api, city_api, ingest_api
from city.server.health import check_dependencies, check_registry
from city.server.openapi import Api
from city.server.state import City
from city.serving import models_api, open_inference_api, predict_api
from city.settings import Settings
from city.stack.worker import summaries
from city.web import problems
from city.web.guard import Guard, client_of, needs
from city.web.pages import Pages
from city.web.problems import Problem
from city.web.rate_limits import FailedKeys
from city.web.responses import (
    DependencyHealth,
    HealthResponse,
    LivenessResponse,
    ReadinessResponse,
    TokenResponse,
)

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

DESCRIPTION = """Predictions of the city's models, the city as it is now, and how the platform itself does.

Send a key as `X-API-Key`, or a token of `/token` as `Authorization: Bearer …`; on loopback none is needed.
Errors are problem details (RFC 9457), which name the field and the fix."""


def build(config: Settings, selected_models: Sequence[Model] | None = None) -> ASGIApp:
    """The application, with the models of every domain, or with `selected_models` only."""
    city = _city(config, selected_models)
    failed_keys = FailedKeys(config.failed_keys_a_minute)
    predict = predict_api.predict_endpoint(city.predictor)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await city.start()
        pages.start(may_build=lambda: bool(city.live.messages) or not city.live.states)
        if not config.wants_keys:
            log.warning(
                "requests need no key, because only this machine can reach %s (CITY_AUTH=on requires one)", config.serve
            )
        try:
            yield
        finally:
            await city.stop()

    app = _api(city, predict, failed_keys, has_domains=selected_models is None, lifespan=lifespan)
    pages = Pages(app, config)
    guarded = Guard(predict_api.FastPath(app, predict), config, city.keys, city.tokens, failed_keys)
    if not config.cors_origins:
        return guarded
    # Before the guard: a browser's preflight request has no key, and a page reads refusals only with CORS headers.
    return CORSMiddleware(
        guarded, config.cors_origins, allow_methods=["*"], allow_headers=["*"], expose_headers=["retry-after"]
    )


def document() -> dict[str, Any]:
    """Returns the OpenAPI document of the routes of every domain. It needs no running server and no settings."""
    with tempfile.TemporaryDirectory() as home:
        city = _city(Settings(_env_file=None, home=Path(home), domains=[], extra_domains=[]), None)
        failed_keys = FailedKeys(city.config.failed_keys_a_minute)
        return _api(city, predict_api.predict_endpoint(city.predictor), failed_keys, has_domains=True).openapi()


def _city(config: Settings, selected_models: Sequence[Model] | None) -> City:
    layers_and_conditions = (layers(config), conditions(config)) if selected_models is None else ([], [])
    return City(config, models(selected_models), *layers_and_conditions)


def _api(
    city: City,
    predict: Callable[[Request], Awaitable[Response]],
    failed_keys: FailedKeys,
    *,
    has_domains: bool,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> Api:
    """Builds the routes. `predict` is the endpoint of `/predict`; `has_domains` includes the routes of the domains."""
    app = Api(title="City", version="1", description=DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None)
    problems.install(app)
    app.include_router(predict_api.router(city.predictor, predict))
    app.include_router(open_inference_api.router(city.predictor))
    app.include_router(models_api.router(city.predictor))
    app.include_router(_server_routes(city, failed_keys))
    app.include_router(city_api.pages(city))
    app.include_router(city_api.router(city))
    app.include_router(alarms_api.router(city))
    app.include_router(ingest_api.router(city))
    for module in modules(city.config, "api") if has_domains else []:
        app.include_router(module.router(city))
    return app


def _server_routes(city: City, failed_keys: FailedKeys) -> APIRouter:
    """The routes about the server itself: its health, its metrics and its tokens."""
    routes = APIRouter(tags=["the server"])

    @routes.head("/health", include_in_schema=False)
    @routes.get(
        "/health",
        summary="Get liveness, readiness and the state of each dependency",
        responses={503: {"model": HealthResponse}},
    )
    @routes.get("/api/health", include_in_schema=False)
    async def health(response: Response) -> HealthResponse:
        results = await asyncio.to_thread(check_dependencies, city.predictor, city.failing_channels)
        is_ready = all(d.ok for d in results if d.needed)
        response.status_code = 200 if is_ready else 503
        checks = {d.name: DependencyHealth(ok=d.ok, needed=d.needed, detail=d.detail) for d in results}
        return HealthResponse(ready=is_ready, at=time.time(), dependencies=checks, workers=summaries())

    @routes.head("/health/live", include_in_schema=False)
    @routes.get("/health/live", summary="Check liveness")
    async def live() -> LivenessResponse:
        return LivenessResponse()

    @routes.head("/health/ready", include_in_schema=False)
    @routes.get("/health/ready", summary="Check readiness", responses={503: {"model": ReadinessResponse}})
    async def ready(response: Response) -> ReadinessResponse:
        # Predictions need nothing but the registry, and a probe must not wait for servers that may hang.
        is_ready = check_registry(city.predictor).ok
        response.status_code = 200 if is_ready else 503
        return ReadinessResponse(ready=is_ready)

    @routes.get(
        "/metrics",
        summary="Get metrics in the Prometheus format",
        response_class=PlainTextResponse,
        dependencies=[Depends(needs("viewer"))],
    )
    async def metrics() -> Response:
        def text() -> bytes:
            return city.metrics.text(city.champions(), city.freshness.ages(), city.alarm_figures())

        return Response(await asyncio.to_thread(text), media_type="text/plain; version=0.0.4; charset=utf-8")

    @routes.post("/token", summary="Exchange a key for a short-lived token (OAuth2 client credentials)")
    async def token(
        request: Request,
        grant_type: Annotated[str, Form(max_length=50)],
        client_id: Annotated[str, Form(max_length=100)],
        client_secret: Annotated[str, Form(max_length=200)],
    ) -> TokenResponse:
        if grant_type != "client_credentials":
            raise Problem(400, f"grant_type {grant_type!r} is not known: it is client_credentials")
        caller = city.keys.caller_of(client_secret)
        if caller is None or caller.name != client_id or (caller.expires and caller.expires < time.time()):
            failed_keys.count(client_of(request.scope))
            raise Problem(401, "this name and key do not belong together, or the key has expired")
        issued, seconds = city.tokens.issue(client_secret)
        return TokenResponse(access_token=issued, expires_in=seconds, scope=caller.role)

    return routes


def server(config: Settings, selected_models: Sequence[Model] | None = None) -> "uvicorn.Server":
    """The server of the application. Its `run` serves until SIGINT or SIGTERM. Then it answers and records the requests
    that are under way."""
    import uvicorn

    tls: dict[str, Path | None] = {"ssl_certfile": config.tls_cert, "ssl_keyfile": config.tls_key}
    settings = uvicorn.Config(
        build(config, selected_models),
        host=config.host,
        port=config.serve_port,
        loop="auto",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=65_536,
        ws_per_message_deflate=False,  # with five hundred clients it would use a whole core
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=30,
        forwarded_allow_ips=config.trusted_proxies,
        timeout_graceful_shutdown=10,
        **tls,  # type: ignore[arg-type]
    )
    return uvicorn.Server(settings)
