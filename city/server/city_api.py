"""The routes that are the same for every domain: what is live, how the platform does, and its alarms."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request, WebSocket
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from city.alerts.model import AlertError
from city.alerts.store import OVERVIEW, AlertStore
from city.live.facts import facts
from city.live.reader import FEED
from city.server.state import City
from city.stack.status import status
from city.web.guard import PROTOCOL, caller_of, needs
from city.web.metrics import newest_drift
from city.web.problems import Problem

_STATUS_SECONDS, _CHECKS_SECONDS, _DAY_SECONDS = 2.0, 15.0, 60.0
_NAMES = re.compile(r"^[a-z_,]{1,200}$")
_Number = Annotated[int, InPath(ge=1, le=2**31)]


class NoteBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"note": "the sensor is being replaced"}]}
    )

    note: str = Field("", max_length=1000)


class AssignBody(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"to": "Ada"}]})

    to: str = Field(min_length=1, max_length=100, pattern=r"\S")


class Kept:
    """An answer that is good for some seconds, made once however many ask."""

    def __init__(self, make: Callable[[], Any], seconds: float) -> None:
        self._make, self._seconds = make, seconds
        self._until, self._value = float("-inf"), cast(Any, None)
        self._lock = asyncio.Lock()

    async def get(self) -> Any:
        async with self._lock:
            if time.monotonic() > self._until:
                self._value = await asyncio.to_thread(self._make)
                self._until = time.monotonic() + self._seconds
        return self._value


def router(city: City) -> APIRouter:
    found = APIRouter(prefix="/api", tags=["the city"], dependencies=[Depends(needs("viewer"))])
    config, live = city.config, city.live
    platform = Kept(lambda: status(config), _STATUS_SECONDS)
    drift = Kept(lambda: newest_drift(config), _CHECKS_SECONDS)
    today = Kept(lambda: facts(config), _DAY_SECONDS)

    @found.get("/stats", summary="Rates, lag, latency and counts, now")
    async def stats() -> dict[str, Any]:
        known = await platform.get()
        stream = known["parts"].get("stream", {})
        return {
            "at": time.time(),
            "up_seconds": round(time.time() - city.began),
            "events_per_second": stream.get("events_per_second"),
            "lag": stream.get("lag"),
            "p95_ms": stream.get("p95_ms"),
            "events": sum(known["bronze_rows"].values()),
            "quarantined": sum(known["quarantined"].values()),
            "live": {name: len(state.rows) for name, state in live.states.items()},
            "predictions": city.predictor.store.written + city.predictor.store.waiting,
            "models_serving": len(city.predictor.versions.champions()),
            "clients": city.hub.clients,
        }

    @found.get("/operations", summary="Every part and stream, and the drift of features")
    async def operations() -> dict[str, Any]:
        known = await platform.get()
        of: dict[str, dict[str, float]] = {}
        for view, feature, _, effect in await drift.get():
            of.setdefault(view, {})[feature] = max(effect, of.get(view, {}).get(feature, 0.0))
        return {
            **known,
            "live_error": live.error,
            "drift": of,
            "links": {
                "dagster": f"http://{config.dagster}",
                "mlflow": config.mlflow_url,
                "data_docs": [f"/quality/{name}/" for name in _documented(config.home / "quality")],
            },
        }

    @found.get("/checks", summary="How many asset checks pass, and those that fail")
    async def asset_checks() -> dict[str, Any]:
        known = await asyncio.to_thread(city.alert_store)
        return await asyncio.to_thread(checks_of, known)

    @found.get("/live/{layer}", summary="A layer's rows")
    async def rows(layer: Annotated[str, InPath(max_length=50)]) -> dict[str, Any]:
        if layer == FEED:
            return {"rows": live.scores()}
        if layer not in live.states:
            raise Problem(404, f"no layer {layer!r}; known: {', '.join([*live.states, FEED])}")
        return {"at": time.time(), "rows": live.rows(layer)}

    @found.get("/today", summary="How the city did today, in words and figures")
    async def day() -> dict[str, Any]:
        return {"at": time.time(), "timezone": config.timezone, "facts": [asdict(fact) for fact in await today.get()]}

    @found.get("/alarms", summary="Open alarms, the gravest first")
    async def alarms(closed: Annotated[bool, Query(description="also those that were dealt with")] = False) -> Any:
        known = await asyncio.to_thread(city.alert_store)
        return {"alarms": [asdict(a) | {"state": a.state} for a in await asyncio.to_thread(known.alarms, closed)]}

    @found.get("/alarms/{number}/history", summary="What became of an alarm")
    async def history(number: _Number) -> Any:
        known = await asyncio.to_thread(city.alert_store)
        await _changed(lambda: known.alarm(number))
        return {"history": await asyncio.to_thread(known.history, number)}

    operator = [Depends(needs("operator"))]

    @found.post("/alarms/{number}/acknowledge", summary="Somebody looks after it", dependencies=operator)
    async def acknowledge(number: _Number, body: NoteBody, request: Request) -> Any:
        known = await asyncio.to_thread(city.alert_store)
        return await _changed(lambda: known.acknowledge(number, caller_of(request).name, body.note))

    @found.post("/alarms/{number}/assign", summary="Who looks after it", dependencies=operator)
    async def assign(number: _Number, body: AssignBody, request: Request) -> Any:
        known = await asyncio.to_thread(city.alert_store)
        return await _changed(lambda: known.assign(number, body.to, caller_of(request).name))

    @found.post("/alarms/{number}/clear", summary="It is over", dependencies=operator)
    async def clear(number: _Number, body: NoteBody, request: Request) -> Any:
        known = await asyncio.to_thread(city.alert_store)
        return await _changed(lambda: known.clear(number, caller_of(request).name, body.note))

    return found


def pages(city: City) -> APIRouter:
    """What needs no key: what a page must know before it can ask for one; and the stream, whose guard is its own."""
    found = APIRouter(tags=["the city"])

    @found.get("/api/config", summary="What a page needs to know")
    async def settings() -> dict[str, Any]:
        return {
            "wants_key": city.config.wants_keys,
            "map_style": city.config.map_style_url,
            "timezone": city.config.timezone,
            "layers": {
                name: {"columns": state.layer.header, "means": state.layer.means}
                for name, state in city.live.states.items()
            },
        }

    @found.websocket("/ws/stream")
    async def stream(socket: WebSocket) -> None:
        """A snapshot, then what changed, twice a second. `?layers=vehicles,cells` for some only; `?since=SEQ&epoch=E`
        goes on where a connection was lost."""
        asked = socket.query_params
        layers, since = asked.get("layers"), asked.get("since", "")
        known = {*city.live.states, FEED}
        if layers is not None and (not _NAMES.match(layers) or not {*layers.split(",")} <= known):
            said = f"no such layers; known: {', '.join(sorted(known))}"
            await socket.send_denial_response(Problem(422, said, [("layers", said)]).response())
            return
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(PROTOCOL if PROTOCOL in offered else None)
        chosen = tuple(sorted(layers.split(","))) if layers else None
        place = int(since) if since.isdecimal() and len(since) < 18 else None
        await city.hub.serve(socket, chosen, place, asked.get("epoch", ""))

    return found


def checks_of(known: AlertStore) -> dict[str, Any]:
    """Asset checks as they were last evaluated, whatever was materialized since."""
    found = known.remembered(OVERVIEW)
    if found is None:
        return {"error": "Dagster has not told of its checks yet", "passed": 0, "failed": []}
    return {"error": None, "passed": len(found["passed"]), "failed": list(found["failed"].values())}


def _documented(folder: Path) -> list[str]:
    return sorted(page.parent.name for page in folder.glob("*/index.html"))


async def _changed(change: Callable[[], Any]) -> Any:
    try:
        alarm = await asyncio.to_thread(change)
    except AlertError as error:
        raise Problem(404, str(error)) from None
    return asdict(alarm) | {"state": alarm.state}
