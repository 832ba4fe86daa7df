"""HTTP routes of models: their versions, the routing of requests between versions, and the audit log."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from city.models.model import Model, ModelError
from city.models.registry import NoChampionBefore, NoSuchVersion, Registry, Version
from city.serving.predictor import Predictor
from city.serving.responses import (
    AuditResponse,
    ModelInput,
    ModelResponse,
    ModelsResponse,
    ModelSummary,
    ModelVersion,
    RoutingResponse,
)
from city.serving.roles import Kind
from city.serving.trial import Experiment, Limits
from city.web.audit import Audit
from city.web.guard import caller_of, needs
from city.web.problems import Problem

_SHOWN = 10
_STATUS = {NoSuchVersion: 404, NoChampionBefore: 409}
_ADMIN = [Depends(needs("admin"))]
_Number = Annotated[int, Field(ge=1, le=2**31)]
Result = TypeVar("Result")


# Bodies of requests. They have no docstrings, because a docstring would become a description in the OpenAPI schema.
class LimitsBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    error_rate: float = Field(Limits.error_rate, ge=0, le=1)
    latency_ratio: float = Field(Limits.latency_ratio, ge=1, le=1000)
    least_requests: int = Field(Limits.least_requests, ge=1, le=1_000_000)


class ExperimentBody(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"kind": "canary", "version": 2}]})

    kind: Kind
    version: _Number
    share: float = Field(0.1, gt=0, le=1, description="of the requests (canary, shadow) or of the keys (ab)")
    limits: LimitsBody = Field(default_factory=LimitsBody, description="the limits that end a canary")


class PromoteBody(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 2}]})

    version: _Number


class MarkdownResponse(PlainTextResponse):
    """A response in Markdown."""

    media_type = "text/markdown"


def router(predictor: Predictor) -> APIRouter:
    """Returns the routes of models. Reads need the role viewer, changes need the role admin."""
    routes = APIRouter(tags=["models"], dependencies=[Depends(needs("viewer"))])
    _add_model_routes(routes, predictor)
    _add_routing_routes(routes, predictor)
    _add_champion_routes(routes, predictor)
    _add_audit_route(routes, predictor.audit)
    return routes


def _add_model_routes(routes: APIRouter, predictor: Predictor) -> None:
    """Adds the routes that describe models and their versions."""
    config = predictor.config

    @routes.get("/models", summary="List models with their versions and scores")
    async def models() -> ModelsResponse:
        def read() -> dict[str, list[Version]]:
            registry = Registry(config)
            return {name: registry.versions(name)[:_SHOWN] for name in predictor.models}

        versions_by_model = await _call_registry(read)
        return ModelsResponse(
            models=[
                _describe_model(predictor, predictor.models[name], versions)
                for name, versions in versions_by_model.items()
            ]
        )

    @routes.get("/models/{name}", summary="Get a model's versions, routing and inputs")
    async def model(name: str) -> ModelResponse:
        declaration = predictor.model(name)
        versions = await _call_registry(lambda: Registry(config).versions(name))
        summary = _describe_model(predictor, declaration, versions)
        return ModelResponse(**dict(summary), inputs=_describe_inputs(declaration))

    @routes.get(
        "/models/{name}/versions/{version}/card",
        summary="Get a version's model card, as Markdown",
        response_class=MarkdownResponse,
    )
    async def card(name: str, version: _Number) -> MarkdownResponse:
        predictor.model(name)

        def read() -> str:
            registry = Registry(config)
            return registry.card(registry.version(name, version))

        return MarkdownResponse(await _call_registry(read))


def _add_routing_routes(routes: APIRouter, predictor: Predictor) -> None:
    """Adds the routes that show, begin and end experiments."""

    @routes.get("/models/{name}/routing", summary="Get a model's routing")
    async def routing(name: str) -> RoutingResponse:
        predictor.model(name)
        return _describe_routing(predictor, name)

    @routes.put("/models/{name}/routing", summary="Start a canary, an A/B test or a shadow", dependencies=_ADMIN)
    async def begin(name: str, body: ExperimentBody, request: Request) -> RoutingResponse:
        predictor.model(name)
        champion = predictor.champion(name)
        if champion.number == body.version:
            raise Problem(
                409, f"version {body.version} is the champion already: name another", [("version", "another")]
            )
        try:
            await predictor.versions.version(name, body.version)
        except ModelError as error:
            raise Problem(_STATUS.get(type(error), 409), str(error), [("version", str(error))]) from None
        by, limits = caller_of(request).name, Limits(**body.limits.model_dump())
        experiment = Experiment(body.kind, body.version, body.share, limits, by, time.time())
        predictor.routes.put(name, experiment, champion.number, by)
        return _describe_routing(predictor, name)

    @routes.delete("/models/{name}/routing", summary="End a canary, an A/B test or a shadow", dependencies=_ADMIN)
    async def end(name: str, request: Request) -> RoutingResponse:
        predictor.model(name)
        if predictor.routes.experiment(name) is None:
            raise Problem(404, f"{name} has no experiment under way")
        predictor.routes.remove(name, caller_of(request).name, "by hand")
        return _describe_routing(predictor, name)


def _add_champion_routes(routes: APIRouter, predictor: Predictor) -> None:
    """Adds the routes that change a model's champion."""

    async def change_champion(name: str, change: Callable[[Registry], None]) -> RoutingResponse:
        """Changes the champion in the registry, and loads it."""
        predictor.model(name)
        await _call_registry(lambda: change(Registry(predictor.config)))
        await _call_registry(predictor.versions.refresh)
        return _describe_routing(predictor, name)

    @routes.post("/models/{name}/promote", summary="Promote a version to champion", dependencies=_ADMIN)
    async def promote(name: str, body: PromoteBody, request: Request) -> RoutingResponse:
        """It serves within seconds, here and in the stream; no request is lost meanwhile."""
        by = caller_of(request).name

        def change(registry: Registry) -> None:
            version = registry.version(name, body.version)
            with _audit_change(predictor.audit, by, "promoted", version):
                registry.promote(version, f"by {by}")

        return await change_champion(name, change)

    @routes.post("/models/{name}/rollback", summary="Restore the previous champion", dependencies=_ADMIN)
    async def rollback(name: str, request: Request) -> RoutingResponse:
        by = caller_of(request).name

        def change(registry: Registry) -> None:
            with _audit_change(predictor.audit, by, "rolled back", registry.champion_before(name)):
                registry.rollback(name)

        return await change_champion(name, change)


def _add_audit_route(routes: APIRouter, log: Audit) -> None:
    """Adds the route of the audit log."""

    @routes.get("/audit", summary="List changes with their authors, the newest first", dependencies=_ADMIN)
    async def audit(count: Annotated[int, Query(ge=1, le=1000)] = 100) -> AuditResponse:
        return AuditResponse(entries=await asyncio.to_thread(log.newest, count))


async def _call_registry(function: Callable[[], Result]) -> Result:
    """Calls a function that reads or changes the registry, in a thread. Raises Problem for a ModelError."""
    try:
        return await asyncio.to_thread(function)
    except ModelError as error:
        raise Problem(_STATUS.get(type(error), 503), str(error)) from None


@contextlib.contextmanager
def _audit_change(audit: Audit, by: str, what: str, version: Version) -> Iterator[None]:
    """Writes the change to the audit log before the body makes it. If the body fails, writes that too."""
    audit.write(by, what, model=version.model, version=version.number)
    try:
        yield
    except Exception as error:
        with contextlib.suppress(Problem):
            audit.write(by, f"not {what}", model=version.model, version=version.number, why=str(error))
        raise


def _describe_routing(predictor: Predictor, name: str) -> RoutingResponse:
    champion = predictor.versions.champion(name)
    return RoutingResponse(
        champion=champion.number if champion else None,
        experiment=predictor.routes.report(name),
        ended=predictor.routes.end_reasons.get(name),
    )


def _describe_model(predictor: Predictor, model: Model, versions: list[Version]) -> ModelSummary:
    champion = predictor.versions.champion(model.name)
    return ModelSummary(
        name=model.name,
        means=model.description,
        kind=model.kind,
        unit=model.label.unit or None,
        classes=list(model.label.classes) or None,
        features=model.features,
        entity=list(model.view.entities),
        measure=model.measure,
        ahead_minutes=model.label.ahead.total_seconds() / 60,
        serving=champion.number if champion else None,
        experiment=predictor.routes.report(model.name),
        versions=[
            ModelVersion(
                version=version.number,
                aliases=list(version.aliases),
                trained_at=version.tags.get("trained_at"),
                metrics=version.metrics,
            )
            for version in versions
        ],
    )


def _describe_inputs(model: Model) -> list[ModelInput]:
    columns = [model.view.features[name] for name in model.inputs]
    return [
        ModelInput(name=c.name, kind=c.kind, unit=c.unit, nullable=c.nullable, means=c.description) for c in columns
    ]
