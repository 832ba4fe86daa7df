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
from city.web.guard import caller_of, needs
from city.web.problems import Problem

_SHOWN = 10
_STATUS = {NoSuchVersion: 404, NoChampionBefore: 409}
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
    limits: LimitsBody = Field(default_factory=LimitsBody, description="what a canary is ended at")


class PromoteBody(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 2}]})

    version: _Number


class MarkdownResponse(PlainTextResponse):
    """A response in Markdown."""

    media_type = "text/markdown"


def router(predictor: Predictor) -> APIRouter:
    """Returns the routes of models. Reads need the role viewer, changes need the role admin."""
    api = APIRouter(tags=["models"], dependencies=[Depends(needs("viewer"))])
    admin = [Depends(needs("admin"))]
    routes = predictor.routes

    def registry() -> Registry:
        return Registry(predictor.config)

    async def call_registry(function: Callable[[], Result]) -> Result:
        """Calls a function that reads or changes the registry, in a thread. Raises Problem for a ModelError."""
        try:
            return await asyncio.to_thread(function)
        except ModelError as error:
            raise Problem(_STATUS.get(type(error), 503), str(error)) from None

    @contextlib.contextmanager
    def audited(by: str, what: str, version: Version) -> Iterator[None]:
        """Writes the change to the audit log before the body makes it. If the body fails, writes that too."""
        predictor.audit.write(by, what, model=version.model, version=version.number)
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Problem):
                predictor.audit.write(by, f"not {what}", model=version.model, version=version.number, why=str(error))
            raise

    @api.get("/models", summary="Every model, its versions and how good they are")
    async def models() -> ModelsResponse:
        def read() -> dict[str, list[Version]]:
            client = registry()
            return {name: client.versions(name)[:_SHOWN] for name in predictor.models}

        versions_by_model = await call_registry(read)
        return ModelsResponse(
            models=[
                _describe_model(predictor, predictor.models[name], versions)
                for name, versions in versions_by_model.items()
            ]
        )

    @api.get("/models/{name}", summary="A model's versions, its routing and its inputs")
    async def model(name: str) -> ModelResponse:
        declared = predictor.model(name)
        versions = await call_registry(lambda: registry().versions(name))
        summary = _describe_model(predictor, declared, versions)
        return ModelResponse(**dict(summary), inputs=_describe_inputs(declared))

    @api.get(
        "/models/{name}/versions/{version}/card",
        summary="A version's model card, as Markdown",
        response_class=MarkdownResponse,
    )
    async def card(name: str, version: _Number) -> MarkdownResponse:
        predictor.model(name)
        text = await call_registry(lambda: registry().card(registry().version(name, version)))
        return MarkdownResponse(text)

    @api.get("/models/{name}/routing", summary="Which version answers")
    async def routing(name: str) -> RoutingResponse:
        predictor.model(name)
        champion = predictor.versions.champion(name)
        return RoutingResponse(
            champion=champion.number if champion else None,
            experiment=routes.report(name),
            ended=routes.ended.get(name),
        )

    @api.put("/models/{name}/routing", summary="Begin a canary, an A/B test or a shadow", dependencies=admin)
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
        routes.put(name, Experiment(body.kind, body.version, body.share, limits, by, time.time()), champion.number, by)
        return await routing(name)

    @api.delete("/models/{name}/routing", summary="The champion answers all again", dependencies=admin)
    async def end(name: str, request: Request) -> RoutingResponse:
        predictor.model(name)
        if routes.experiment(name) is None:
            raise Problem(404, f"{name} has no experiment under way")
        routes.remove(name, caller_of(request).name, "by hand")
        return await routing(name)

    @api.post("/models/{name}/promote", summary="Make a version the champion", dependencies=admin)
    async def promote(name: str, body: PromoteBody, request: Request) -> RoutingResponse:
        """It serves within seconds, here and in the stream; no request is lost meanwhile."""
        predictor.model(name)
        by = caller_of(request).name

        def change() -> None:
            client = registry()
            version = client.version(name, body.version)
            with audited(by, "promoted", version):
                client.promote(version, f"by {by}")

        await call_registry(change)
        await call_registry(predictor.versions.refresh)
        return await routing(name)

    @api.post("/models/{name}/rollback", summary="Make the champion before the champion again", dependencies=admin)
    async def rollback(name: str, request: Request) -> RoutingResponse:
        predictor.model(name)
        by = caller_of(request).name

        def change() -> None:
            client = registry()
            with audited(by, "rolled back", client.champion_before(name)):
                client.rollback(name)

        await call_registry(change)
        await call_registry(predictor.versions.refresh)
        return await routing(name)

    @api.get("/audit", summary="Who changed what, the newest first", dependencies=admin)
    async def audit(count: Annotated[int, Query(ge=1, le=1000)] = 100) -> AuditResponse:
        return AuditResponse(entries=await asyncio.to_thread(predictor.audit.newest, count))

    return api


def _describe_model(predictor: Predictor, model: Model, versions: list[Version]) -> ModelSummary:
    champion = predictor.versions.champion(model.name)
    return ModelSummary(
        name=model.name,
        means=model.means,
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
    return [ModelInput(name=c.name, kind=c.kind, unit=c.unit, nullable=c.nullable, means=c.means) for c in columns]
