"""The routes that all domains share: the live city, the status of the platform, and its alarms."""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from fastapi import APIRouter, Depends, Query, Request, WebSocket
from fastapi import Path as InPath
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from city.alerts.model import Alarm, AlertError
from city.alerts.store import OVERVIEW, AlertStore
from city.live.facts import facts
from city.live.messages import ScoreFeed
from city.live.reader import FEED
from city.server.responses import (
    AlarmHistoryResponse,
    AlarmResponse,
    AlarmsResponse,
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
from city.web.guard import PROTOCOL, caller_of, needs
from city.web.json_response import json_response
from city.web.metrics import newest_drift
from city.web.problems import Problem

_STATUS_SECONDS, _CHECKS_SECONDS, _DAY_SECONDS = 2.0, 15.0, 60.0
_NAMES = re.compile(r"^[a-z_,]{1,200}$")
_Number = Annotated[int, InPath(ge=1, le=2**31)]
Content = TypeVar("Content")


class NoteBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"note": "the sensor is being replaced"}]}
    )

    note: str = Field("", max_length=1000)


class AssignBody(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"to": "Ada"}]})

    to: str = Field(min_length=1, max_length=100, pattern=r"\S")


class CachedAnswer(Generic[Content]):
    """An answer that is valid for some seconds. It is made once, however many requests need it."""

    def __init__(self, make: Callable[[], Content], seconds: float) -> None:
        self._make, self._seconds = make, seconds
        self._until = float("-inf")
        self._value: Content
        self._lock = asyncio.Lock()

    async def get(self) -> Content:
        """The answer, which is made anew (in a thread) where it is too old."""
        async with self._lock:
            if time.monotonic() > self._until:
                self._value = await asyncio.to_thread(self._make)
                self._until = time.monotonic() + self._seconds
            return self._value


def router(city: City) -> APIRouter:
    """The routes below /api. They need the role viewer, and those that change alarms need the role operator."""
    routes = APIRouter(prefix="/api", tags=["the city"], dependencies=[Depends(needs("viewer"))])
    config, live = city.config, city.live
    platform = CachedAnswer(lambda: status(config), _STATUS_SECONDS)
    drift = CachedAnswer(lambda: newest_drift(config), _CHECKS_SECONDS)
    today = CachedAnswer(lambda: facts(config), _DAY_SECONDS)

    @routes.get("/stats", summary="Rates, lag, latency and counts, now")
    async def stats() -> StatsResponse:
        report = await platform.get()
        stream = report["parts"].get("stream")
        return StatsResponse(
            at=time.time(),
            up_seconds=round(time.time() - city.began),
            events_per_second=stream["events_per_second"] if stream else None,
            lag=stream["lag"] if stream else None,
            p95_ms=stream["p95_ms"] if stream else None,
            events=sum(report["bronze_rows"].values()),
            quarantined=sum(report["quarantined"].values()),
            live={name: len(state.rows) for name, state in live.states.items()},
            predictions=city.predictor.store.written + city.predictor.store.waiting,
            models_serving=len(city.predictor.versions.champions()),
            clients=city.hub.clients,
        )

    @routes.get(
        "/operations",
        summary="Every part and stream, and the drift of features",
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

    @routes.get("/checks", summary="How many asset checks pass, and those that fail")
    async def asset_checks() -> ChecksResponse:
        store = await asyncio.to_thread(city.alert_store)
        return await asyncio.to_thread(checks_of, store)

    @routes.get("/live/{layer}", summary="A layer's rows", response_model=LayerRowsResponse | ScoreFeed)
    async def rows(layer: Annotated[str, InPath(max_length=50)]) -> Response:
        if layer == FEED:
            return json_response(ScoreFeed(rows=live.scores()))
        if layer not in live.states:
            raise Problem(404, f"no layer {layer!r}; known: {', '.join([*live.states, FEED])}")
        return json_response(LayerRowsResponse(at=time.time(), rows=live.rows(layer)))

    @routes.get("/today", summary="How the city did today, in words and figures")
    async def day() -> TodayResponse:
        described = [FactResponse.model_validate(fact) for fact in await today.get()]
        return TodayResponse(at=time.time(), timezone=config.timezone, facts=described)

    @routes.get("/alarms", summary="Open alarms, the gravest first")
    async def alarms(
        closed: Annotated[bool, Query(description="also those that were dealt with")] = False,
    ) -> AlarmsResponse:
        store = await asyncio.to_thread(city.alert_store)
        alarms = await asyncio.to_thread(store.alarms, closed)
        return AlarmsResponse(alarms=[AlarmResponse.model_validate(alarm) for alarm in alarms])

    @routes.get("/alarms/{number}/history", summary="What became of an alarm")
    async def history(number: _Number) -> AlarmHistoryResponse:
        store = await asyncio.to_thread(city.alert_store)
        await _alarm_after(lambda: store.alarm(number))
        return AlarmHistoryResponse(history=await asyncio.to_thread(store.history, number))

    operator = [Depends(needs("operator"))]

    @routes.post("/alarms/{number}/acknowledge", summary="Somebody looks after it", dependencies=operator)
    async def acknowledge(number: _Number, body: NoteBody, request: Request) -> AlarmResponse:
        store = await asyncio.to_thread(city.alert_store)
        return await _alarm_after(lambda: store.acknowledge(number, caller_of(request).name, body.note))

    @routes.post("/alarms/{number}/assign", summary="Who looks after it", dependencies=operator)
    async def assign(number: _Number, body: AssignBody, request: Request) -> AlarmResponse:
        store = await asyncio.to_thread(city.alert_store)
        return await _alarm_after(lambda: store.assign(number, body.to, caller_of(request).name))

    @routes.post("/alarms/{number}/clear", summary="It is over", dependencies=operator)
    async def clear(number: _Number, body: NoteBody, request: Request) -> AlarmResponse:
        store = await asyncio.to_thread(city.alert_store)
        return await _alarm_after(lambda: store.clear(number, caller_of(request).name, body.note))

    return routes


def pages(city: City) -> APIRouter:
    """The routes without the dependency on a role: the settings that a page needs before it can send a key, and the
    stream, for which the guard alone checks the key."""
    routes = APIRouter(tags=["the city"])

    @routes.get("/api/config", summary="What a page needs to know")
    async def settings() -> ConfigResponse:
        return ConfigResponse(
            wants_key=city.config.wants_keys,
            map_style=city.config.map_style_url,
            timezone=city.config.timezone,
            layers={
                name: LayerDescription(columns=state.layer.header, means=state.layer.means)
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


def checks_of(store: AlertStore) -> ChecksResponse:
    """The results of the asset checks at their last evaluation, even where assets were materialized since."""
    checks = store.remembered(OVERVIEW)
    if checks is None:
        return ChecksResponse(error="Dagster has not reported its checks yet", passed=0, failed=[])
    return ChecksResponse(error=None, passed=len(checks["passed"]), failed=list(checks["failed"].values()))


def _report_names(folder: Path) -> list[str]:
    return sorted(page.parent.name for page in folder.glob("*/index.html"))


async def _alarm_after(change: Callable[[], Alarm]) -> AlarmResponse:
    """Makes a change in a thread. Returns the alarm that the change returns. Raises Problem (404)."""
    try:
        alarm = await asyncio.to_thread(change)
    except AlertError as error:
        raise Problem(404, str(error)) from None
    return AlarmResponse.model_validate(alarm)
