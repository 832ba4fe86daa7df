"""The routes that all domains share: the status of the platform, and the live city."""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from fastapi import APIRouter, Depends, WebSocket
from fastapi import Path as InPath
from fastapi.responses import Response

from city.alerts.store import OVERVIEW, AlertStore
from city.live.facts import facts
from city.live.messages import ScoreFeed
from city.live.reader import FEED
from city.server.responses import (
    ChecksResponse,
    ConfigResponse,
    FactResponse,
    LayerDescription,
    LayerRowsResponse,
    OperationsResponse,
    StatsResponse,
    TodayResponse,
)
from city.server.state import City
from city.stack.status import status
from city.web.guard import PROTOCOL, needs
from city.web.json_response import json_response
from city.web.metrics import newest_drift
from city.web.problems import Problem

_STATUS_SECONDS, _CHECKS_SECONDS, _DAY_SECONDS = 2.0, 15.0, 60.0
_NAMES = re.compile(r"^[a-z_,]{1,200}$")
Content = TypeVar("Content")


class CachedContent(Generic[Content]):
    """Content that is valid for some seconds. It is made once, however many requests need it."""

    def __init__(self, make: Callable[[], Content], seconds: float) -> None:
        self._make, self._seconds = make, seconds
        self._until = float("-inf")
        self._value: Content
        self._lock = asyncio.Lock()

    async def get(self) -> Content:
        """Returns the content. Computes it again, in a thread, when it is too old."""
        async with self._lock:
            if time.monotonic() > self._until:
                self._value = await asyncio.to_thread(self._make)
                self._until = time.monotonic() + self._seconds
            return self._value


def router(city: City) -> APIRouter:
    """Returns the routes below /api that show the platform and the live city. They need the role viewer."""
    routes = APIRouter(prefix="/api", tags=["the city"], dependencies=[Depends(needs("viewer"))])
    _add_platform_routes(routes, city)
    _add_live_routes(routes, city)
    return routes


def _add_platform_routes(routes: APIRouter, city: City) -> None:
    """Adds the routes of the platform: its rates, its parts and its checks."""
    config, live = city.config, city.live
    platform = CachedContent(lambda: status(config), _STATUS_SECONDS)
    drift = CachedContent(lambda: newest_drift(config), _CHECKS_SECONDS)

    @routes.get("/stats", summary="Get current rates, lag, latency and counts")
    async def stats() -> StatsResponse:
        report = await platform.get()
        stream = report["parts"].get("stream")
        return StatsResponse(
            at=time.time(),
            up_seconds=round(time.time() - city.started_at),
            events_per_second=stream["events_per_second"] if stream else None,
            lag=stream["lag"] if stream else None,
            p95_ms=stream["p95_ms"] if stream else None,
            events=sum(report["bronze_rows"].values()),
            quarantined=sum(report["quarantined"].values()),
            live={name: len(state.rows) for name, state in live.states.items()},
            predictions=city.predictor.store.written_rows + city.predictor.store.waiting_rows,
            models_serving=len(city.predictor.versions.champions()),
            clients=city.hub.clients,
            history=report["history"],
        )

    @routes.get(
        "/operations",
        summary="Get the status of every part and stream, and feature drift",
        response_model=OperationsResponse,
    )
    async def operations() -> Response:
        report = await platform.get()
        effects: dict[str, dict[str, float]] = {}
        for view, feature, _, effect in await drift.get():
            effects.setdefault(view, {})[feature] = max(effect, effects.get(view, {}).get(feature, 0.0))
        content: OperationsResponse = {
            **report,
            "live_error": live.error,
            "drift": effects,
            "links": {
                "dagster": f"http://{config.dagster}",
                "mlflow": config.mlflow_url,
                "data_docs": [f"/quality/{name}/" for name in _report_names(config.home / "quality")],
            },
        }
        # Not validated: other processes write the reports, and one of an older release may still run.
        return json_response(content)

    @routes.get("/checks", summary="Count passing asset checks and list failing ones")
    async def asset_checks() -> ChecksResponse:
        store = await asyncio.to_thread(city.alert_store)
        return await asyncio.to_thread(latest_checks, store)


def _add_live_routes(routes: APIRouter, city: City) -> None:
    """Adds the routes of the live city: its layers, and the facts of the day."""
    config, live = city.config, city.live
    today = CachedContent(lambda: facts(config), _DAY_SECONDS)

    @routes.get(
        "/live/{layer}", summary="Get the newest rows of a live layer", response_model=LayerRowsResponse | ScoreFeed
    )
    async def rows(layer: Annotated[str, InPath(max_length=50)]) -> Response:
        if layer == FEED:
            return json_response(ScoreFeed(rows=live.scores()))
        if layer not in live.states:
            raise Problem(404, f"no layer {layer!r}; known: {', '.join([*live.states, FEED])}")
        return json_response(LayerRowsResponse(at=time.time(), rows=live.rows(layer)))

    @routes.get("/today", summary="Get today's summary, as text and figures")
    async def day() -> TodayResponse:
        described = [FactResponse.model_validate(fact) for fact in await today.get()]
        return TodayResponse(at=time.time(), timezone=config.timezone, facts=described)


def pages(city: City) -> APIRouter:
    """The routes without the dependency on a role: the settings that a page needs before it can send a key, and the
    stream, for which the guard alone checks the key."""
    routes = APIRouter(tags=["the city"])

    @routes.get("/api/config", summary="Get the dashboard's configuration")
    async def settings() -> ConfigResponse:
        return ConfigResponse(
            wants_key=city.config.wants_keys,
            map_style=city.config.map_style_url,
            timezone=city.config.timezone,
            layers={
                name: LayerDescription(columns=state.layer.header, means=state.layer.description)
                for name, state in city.live.states.items()
            },
        )

    @routes.websocket("/ws/stream")
    async def stream(socket: WebSocket) -> None:
        """Sends a snapshot, and then the changes, twice a second. `?layers=vehicles,cells` selects some layers;
        `?since=SEQ&epoch=E` continues where a connection was lost."""
        query = socket.query_params
        layers, since = query.get("layers"), query.get("since", "")
        available = {*city.live.states, FEED}
        if layers is not None and (not _NAMES.match(layers) or not {*layers.split(",")} <= available):
            detail = f"no such layers; known: {', '.join(sorted(available))}"
            await socket.send_denial_response(Problem(422, detail, [("layers", detail)]).response())
            return
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(PROTOCOL if PROTOCOL in offered else None)
        chosen = tuple(sorted(layers.split(","))) if layers else None
        position = int(since) if since.isdecimal() and len(since) < 18 else None
        await city.hub.serve(socket, chosen, position, query.get("epoch", ""))

    return routes


def latest_checks(store: AlertStore) -> ChecksResponse:
    """Returns the results of the asset checks at their last evaluation, even where assets were materialized since."""
    checks = store.remembered(OVERVIEW)
    if checks is None:
        return ChecksResponse(error="Dagster has not reported its checks yet", passed=0, failed=[])
    return ChecksResponse(error=None, passed=len(checks["passed"]), failed=list(checks["failed"].values()))


def _report_names(folder: Path) -> list[str]:
    return sorted(page.parent.name for page in folder.glob("*/index.html"))
