"""The routes of alarms: those that show alarms, and those by which people acknowledge, assign and clear them."""

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from city.alerts.model import Alarm, AlertError
from city.server.responses import AlarmHistoryResponse, AlarmResponse, AlarmsResponse
from city.server.state import City
from city.web.guard import caller_of, needs
from city.web.problems import Problem

_OPERATOR = [Depends(needs("operator"))]
_Number = Annotated[int, InPath(ge=1, le=2**31)]


# Bodies of requests. They have no docstrings, because a docstring would become a description in the OpenAPI schema.
class NoteBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"note": "the sensor is being replaced"}]}
    )

    note: str = Field("", max_length=1000)


class AssignBody(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"to": "Ada"}]})

    to: str = Field(min_length=1, max_length=100, pattern=r"\S")


def router(city: City) -> APIRouter:
    """Returns the routes below /api/alarms. Reads need the role viewer, changes need the role operator."""
    routes = APIRouter(prefix="/api", tags=["the city"], dependencies=[Depends(needs("viewer"))])
    _add_list_routes(routes, city)
    _add_change_routes(routes, city)
    return routes


def _add_list_routes(routes: APIRouter, city: City) -> None:
    """Adds the routes that show alarms and their history."""

    @routes.get("/alarms", summary="List open alarms, the most severe first")
    async def alarms(
        closed: Annotated[bool, Query(description="also those that were dealt with")] = False,
    ) -> AlarmsResponse:
        store = await asyncio.to_thread(city.alert_store)
        alarms = await asyncio.to_thread(store.alarms, closed)
        return AlarmsResponse(alarms=[AlarmResponse.model_validate(alarm) for alarm in alarms])

    @routes.get("/alarms/{number}/history", summary="Get an alarm's history")
    async def history(number: _Number) -> AlarmHistoryResponse:
        store = await asyncio.to_thread(city.alert_store)
        await _alarm_after(lambda: store.alarm(number))
        return AlarmHistoryResponse(history=await asyncio.to_thread(store.history, number))


def _add_change_routes(routes: APIRouter, city: City) -> None:
    """Adds the routes by which people acknowledge, assign and clear alarms."""

    @routes.post("/alarms/{number}/acknowledge", summary="Acknowledge an alarm", dependencies=_OPERATOR)
    async def acknowledge(number: _Number, body: NoteBody, request: Request) -> AlarmResponse:
        store = await asyncio.to_thread(city.alert_store)
        return await _alarm_after(lambda: store.acknowledge(number, caller_of(request).name, body.note))

    @routes.post("/alarms/{number}/assign", summary="Assign an alarm to a person", dependencies=_OPERATOR)
    async def assign(number: _Number, body: AssignBody, request: Request) -> AlarmResponse:
        store = await asyncio.to_thread(city.alert_store)
        return await _alarm_after(lambda: store.assign(number, body.to, caller_of(request).name))

    @routes.post("/alarms/{number}/clear", summary="Clear an alarm", dependencies=_OPERATOR)
    async def clear(number: _Number, body: NoteBody, request: Request) -> AlarmResponse:
        store = await asyncio.to_thread(city.alert_store)
        return await _alarm_after(lambda: store.clear(number, caller_of(request).name, body.note))


async def _alarm_after(change: Callable[[], Alarm]) -> AlarmResponse:
    """Makes a change in a thread. Returns the alarm that the change returns. Raises Problem (404)."""
    try:
        alarm = await asyncio.to_thread(change)
    except AlertError as error:
        raise Problem(404, str(error)) from None
    return AlarmResponse.model_validate(alarm)
