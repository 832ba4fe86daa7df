"""The API route of the equipment: what is expected of a machine."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated, cast

import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from city.features.online import online_store
from city.features.reader import FeatureReader
from city.server.state import City
from city.serving.inputs import PredictionRequest
from city.web.guard import caller_of, needs
from city_assets.equipment.life import learning_shortage
from city_assets.equipment.limits import LIMIT_COLUMNS, LifeLimits, limits_of
from city_assets.equipment.models import LIFE


@with_config(ConfigDict(use_attribute_docstrings=True))
class ForecastResponse(TypedDict):
    """The remaining life of a machine, and what to do about it."""

    id: str
    """The prediction's, to be given with the outcome at /feedback."""
    machine_id: str
    at: datetime
    predicted_rul_hours: float
    confidence_interval: tuple[float, float] | None
    """The hours between which the remaining life is, in `coverage` of the cases; null where the model has none."""
    remaining_life: float
    """The prediction in `life_unit`, the unit of the machine's type."""
    remaining_life_interval: tuple[float, float] | None
    life_unit: str
    """h, d or cycles."""
    coverage: float
    recommended_action: str
    """By the lower end of the interval and the machine's type, as in the topic maintenance-predictions."""
    priority: str
    warning: str | None
    """Why the prediction may be wrong: machines of this type are not learned from. Null where they are."""
    model: str
    version: int


def router(city: City) -> APIRouter:
    """Builds the router of the machines' routes. It needs the role `client`, because each answer is recorded."""
    limit_features = [f"{LIFE.features}:{column}" for column in LIMIT_COLUMNS]
    reader = FeatureReader(online_store(city.config), limit_features)
    routes = APIRouter(tags=["equipment"], dependencies=[Depends(needs("client"))])

    @routes.get("/forecast", summary="Get a machine's remaining life, its interval and the recommended action")
    async def forecast(
        request: Request, machine_id: Annotated[str, Query(max_length=100, description="the machine")]
    ) -> ForecastResponse:
        """By the champion, from the machine's newest readings. 404 for a machine without any of the last hours."""
        entity = {"machine_id": machine_id}
        prediction_request = PredictionRequest(model_name=LIFE.name, entity=entity)
        answer = await city.predictor.predict(prediction_request, caller_of(request), time.perf_counter())
        features = await asyncio.get_running_loop().run_in_executor(city.predictor.pool, reader.read, [entity])
        limits = limits_of(features[0])
        hours, interval = limits.hours_of(cast(float, answer["prediction"])), answer.get("interval")
        ends = tuple(limits.hours_of(interval[end]) for end in ("low", "high")) if interval else None
        action, priority = limits.recommended(ends[0] if ends else hours)
        return ForecastResponse(
            id=answer["id"],
            machine_id=machine_id,
            at=datetime.now(UTC),
            predicted_rul_hours=round(hours, 3),
            confidence_interval=(round(ends[0], 3), round(ends[1], 3)) if ends else None,
            remaining_life=round(hours / limits.unit_hours, 3),
            remaining_life_interval=(
                (round(ends[0] / limits.unit_hours, 3), round(ends[1] / limits.unit_hours, 3)) if ends else None
            ),
            life_unit=limits.unit,
            coverage=LIFE.coverage,
            recommended_action=action,
            priority=priority,
            warning=_warning(limits),
            model=answer["model"],
            version=answer["version"],
        )

    return routes


def _warning(limits: LifeLimits) -> str | None:
    warning: str | None = pl.select(life_cap_hours=limits.cap).select(learning_shortage(LIFE.history)).item()
    return warning
