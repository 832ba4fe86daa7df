"""The API routes of the traffic: cells and hotspots now, some minutes ahead, and in the past."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast

import polars as pl
from fastapi import APIRouter, Depends, Query
from fastapi import Path as InPath
from fastapi.responses import Response

from city.features.online import online_store
from city.features.reader import FeatureReader, is_unknown
from city.live.reader import Live
from city.models.examples import inputs
from city.models.predictions import CONFIDENCE, HIGH, LOW, PREDICTION, answers
from city.server.state import City
from city.settings import Settings
from city.web.guard import needs
from city.web.json_response import json_response
from city.web.problems import Problem
from city_assets.traffic import history
from city_assets.traffic.cell_tables import TRAFFIC_FEATURES
from city_assets.traffic.kepler import kepler_map
from city_assets.traffic.live import CELLS, VEHICLES
from city_assets.traffic.models import CONGESTION, MINUTES_AHEAD, speed_model
from city_assets.traffic.responses import (
    CellAhead,
    CellPrediction,
    CellResponse,
    CellRow,
    CellsAheadResponse,
    FeatureValue,
    Hotspot,
    HotspotsResponse,
    KeplerResponse,
    PositionsResponse,
    SeriesResponse,
    TrafficResponse,
    WindowsResponse,
)
from city_assets.traffic.transforms import FREE_KMH, SLOW_KMH, level

_MOST_POSITIONS = timedelta(minutes=5)
_CELL = re.compile(r"^[0-9a-f]{15}$")
_SINCE_HOURS = 2
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
Cell = Annotated[str, InPath(description="an H3 cell of resolution 8", max_length=20)]


def router(city: City) -> APIRouter:
    """Builds the router of the traffic's routes. All of them need the role `viewer`.

    Responses are not validated: they have thousands of rows, and the live ones come from a topic.
    """
    routes = APIRouter(prefix="/api", tags=["traffic"], dependencies=[Depends(needs("viewer"))])
    _add_current_routes(routes, city)
    _add_cell_route(routes, city)
    _add_history_routes(routes, city.config)
    return routes


def _add_current_routes(routes: APIRouter, city: City) -> None:
    """Adds the routes of the whole city: now, and some minutes ahead."""
    live = city.live

    @routes.get(
        "/current-traffic",
        summary="Get each cell's newest window and the number of vehicles",
        response_model=TrafficResponse,
    )
    async def current() -> Response:
        return json_response(_summarize(_live_cells(live), len(live.states[VEHICLES.name].rows)))

    @routes.get("/predictions", summary="Get predicted speeds of all cells", response_model=CellsAheadResponse)
    async def predictions(minutes: Annotated[Literal["5", "10", "15"], Query()] = "15") -> Response:
        """By the champions; where a model has none yet, `serving` says so and its values are null."""
        models = {f"speed_{minutes}": speed_model(int(minutes)).name}
        if minutes == "15":
            models["congestion_15"] = CONGESTION.name
        champions = {model: city.predictor.versions.champion(model) for model in models.values()}
        serving = {model: champion.number if champion else None for model, champion in champions.items()}
        cells = [_cell_ahead(row, list(models), f"speed_{minutes}") for row in live.rows(CELLS.name)]
        return json_response(CellsAheadResponse(minutes=int(minutes), serving=serving, cells=cells))

    @routes.get(
        "/hotspots", summary="List cells with the most slow vehicles, the worst first", response_model=HotspotsResponse
    )
    async def hotspots(count: Annotated[int, Query(ge=1, le=100)] = 10) -> Response:
        """By the vehicles in a cell times what their mean speed lacks of a free one, in vehicle-km/h."""
        return json_response(HotspotsResponse(hotspots=worst(_live_cells(live), count)))


def _add_cell_route(routes: APIRouter, city: City) -> None:
    """Adds the route of one cell: now, its features, its predictions and its last hours."""
    config = city.config

    @routes.get(
        "/cell/{cell}",
        summary="Get all data of a cell",
        response_model=CellResponse,
        operation_id="one_api_cell__cell__get",
    )
    async def cell_details(cell: Cell) -> Response:
        _check_cell(cell)
        row = cast(CellRow | None, city.live.row(CELLS.name, cell))
        since = datetime.now(UTC) - timedelta(hours=_SINCE_HOURS)
        past, features, ahead = await asyncio.gather(
            asyncio.to_thread(history.windows, config, since, datetime.now(UTC), cell, 2),
            asyncio.to_thread(_read_features, config, cell),
            asyncio.to_thread(_predict_cell, city, cell),
        )
        if row is None and not past["rows"]:
            raise Problem(404, f"no vehicle was seen in the cell {cell} within {_SINCE_HOURS} hours")
        content = CellResponse(cell=cell, now=row, features=features, predictions=ahead, history=past)
        return json_response(content)


def _add_history_routes(routes: APIRouter, config: Settings) -> None:
    """Adds the routes of the past: cells, vehicles, the city's figures, and the export."""

    @routes.get("/historical", summary="Get past windows of cells", response_model=WindowsResponse)
    async def historical(
        start: Annotated[datetime | None, Query(description="ISO 8601; default: an hour ago")] = None,
        end: Annotated[datetime | None, Query(description="ISO 8601; default: now")] = None,
        cell: Annotated[str | None, Query(max_length=20)] = None,
        resolution: Annotated[Literal["2", "10", "60"], Query(description="minutes")] = "2",
    ) -> Response:
        """Windows of two or ten minutes are kept for two days; hours for ever. Columns and rows."""
        first, last = _parse_range(start, end, timedelta(hours=1))
        if cell is not None:
            _check_cell(cell)
        if resolution == "60":
            return await _respond(lambda: history.hourly(config, first, last, cell))
        return await _respond(lambda: history.windows(config, first, last, cell, int(resolution)))

    @routes.get(
        "/historical/vehicles", summary="Get past vehicle positions, for playback", response_model=PositionsResponse
    )
    async def vehicles(start: datetime, end: datetime) -> Response:
        """Of at most five minutes: columns and rows, in time's order."""
        first, last = _parse_range(start, end, _MOST_POSITIONS)
        if last - first > _MOST_POSITIONS:
            raise Problem(422, "ask for five minutes at a time", [("end", "at most five minutes after start")])
        return await _respond(lambda: history.positions(config, first, last))

    @routes.get(
        "/series", summary="Get the city's traffic over time, with the week before", response_model=SeriesResponse
    )
    async def series(hours: Annotated[int, Query(ge=1, le=24 * 14)] = 24) -> Response:
        return await _respond(lambda: history.series(config, timedelta(hours=hours)))

    @routes.get("/export/kepler", summary="Export the last hours as a Kepler.gl map", response_model=KeplerResponse)
    async def kepler(hours: Annotated[int, Query(ge=1, le=6)] = 1) -> Response:
        """Data and map settings, as Kepler.gl saves and opens them."""
        last = datetime.now(UTC)
        first = last - timedelta(hours=hours)
        return await _respond(lambda: kepler_map(history.windows(config, first, last, None, 2)["rows"]))


async def _respond(read: Callable[[], Mapping[str, object]]) -> Response:
    """Reads the content of a response and encodes it, in a thread."""
    return await asyncio.to_thread(lambda: json_response(read()))


def _live_cells(live: Live) -> list[CellRow]:
    return cast(list[CellRow], live.rows(CELLS.name))


def _summarize(cells: list[CellRow], vehicles: int) -> TrafficResponse:
    """Summarizes the cells' newest windows. `vehicles` is the number of live vehicles."""
    return {
        "vehicles": vehicles,
        "speed_mean": _weighted_mean([(cell["speed_mean"], cell["vehicle_count"]) for cell in cells]),
        "by_congestion": {name: sum(c["congestion"] == name for c in cells) for name in ("low", "medium", "high")},
        "thresholds_kmh": {"high_below": SLOW_KMH, "medium_below": FREE_KMH},
        "cells": cells,
    }


def _cell_ahead(row: Mapping[str, Any], predictions: Sequence[str], speed: str) -> CellAhead:
    """Returns a cell some minutes ahead, from its live row. `predictions` are the columns of predictions, and `speed`
    is the one that the level is computed from."""
    content = {"cell": row["cell"], "speed_now": row["speed_mean"], **{column: row[column] for column in predictions}}
    return cast(CellAhead, content | {"congestion": level(row[speed])})


def worst(cells: Sequence[CellRow], count: int) -> list[Hotspot]:
    """Returns the `count` cells with the most lost speed, vehicles × (free speed − mean speed), the worst first."""
    slow: list[Hotspot] = [
        {**cell, "lost": round(cell["vehicle_count"] * (FREE_KMH - cell["speed_mean"]), 1)}
        for cell in cells
        if cell["speed_mean"] is not None and cell["speed_mean"] < FREE_KMH
    ]
    return sorted(slow, key=lambda cell: -cell["lost"])[:count]


def _predict_cell(city: City, cell: str) -> list[CellPrediction]:
    """Returns the prediction of each traffic model's champion for a cell, with its interval."""
    predictions: list[CellPrediction] = []
    for model in (*map(speed_model, MINUTES_AHEAD), CONGESTION):
        served = city.predictor.versions.champion(model.name)
        prediction: CellPrediction = {
            "model": model.name,
            "means": model.description,
            "version": served.number if served else None,
        }
        if served is not None:
            reader = FeatureReader(online_store(city.config), model.online)
            (features,) = reader.read([{"cell": cell}])
            if not is_unknown(features):
                rows = inputs(model, pl.DataFrame([features], infer_schema_length=None))
                answered = answers(model, served.exported.calibration, served.exported.predict(rows))
                answer = answered.row(0, named=True)
                prediction["prediction"] = answer[PREDICTION]
                prediction["confidence"] = answer[CONFIDENCE]
                prediction["low"], prediction["high"] = answer[LOW], answer[HIGH]
        predictions.append(prediction)
    return predictions


def _read_features(config: Settings, cell: str) -> dict[str, FeatureValue]:
    (features,) = FeatureReader(online_store(config), [TRAFFIC_FEATURES.name]).read([{"cell": cell}])
    return features


def _weighted_mean(pairs: Sequence[tuple[float | None, int]]) -> float | None:
    measured = [(speed, count) for speed, count in pairs if speed is not None]
    total = sum(count for _, count in measured)
    return round(sum(speed * count for speed, count in measured) / total, 2) if total else None


def _parse_range(start: datetime | None, end: datetime | None, span: timedelta) -> tuple[datetime, datetime]:
    """Returns the range of a request in UTC, by default the last `span`. A time without a zone counts as UTC.

    Raises Problem for an invalid range.
    """
    try:
        last = _to_utc(end) if end else datetime.now(UTC)
        first = _to_utc(start) if start else last - span
    except (OverflowError, ValueError):
        raise Problem(422, "a time beyond what a calendar has", [("start", "give an ISO 8601 time")]) from None
    if first < _FIRST or last > _LAST:
        raise Problem(422, "a time of another century", [("start", "give a time since 1970")])
    if first >= last:
        raise Problem(422, "the range ends before it begins", [("end", "give a time after start")])
    return first, last


def _to_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _check_cell(cell: str) -> None:
    """Raises Problem if the text is no H3 cell. Only a checked cell is put into an SQL statement."""
    if not _CELL.match(cell):
        raise Problem(422, f"{cell!r} is no H3 cell", [("cell", "15 hexadecimal digits, such as 882a100d2dfffff")])
