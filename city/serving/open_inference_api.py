"""HTTP routes of the Open Inference Protocol (V2), which KServe, Triton and MLServer also implement."""

from typing import cast

import orjson
import polars as pl
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from city.models.model import Model
from city.models.predictions import OUTPUT, PREDICTION
from city.serving.predictor import Predictor
from city.serving.request_docs import describe_body, infer_examples
from city.serving.responses import InferResponse, ModelMetadata, ModelReadiness, ServerMetadata, TensorMetadata
from city.serving.tensors import InferRequest, parse_infer_rows
from city.web.guard import caller_of, needs
from city.web.json_response import json_response
from city.web.problems import Problem
from city.web.responses import LivenessResponse, ReadinessResponse

_CLIENT = [Depends(needs("client"))]
_JSON_VALUES = 20_000
"""Number of values of a response that are encoded at a time."""


def router(predictor: Predictor) -> APIRouter:
    """Returns the routes below /v2. They need the role client, except those of health."""
    routes = APIRouter(prefix="/v2", tags=["open inference protocol"])
    _add_server_routes(routes, predictor)
    _add_model_routes(routes, predictor)
    _add_infer_route(routes, predictor)
    return routes


def _add_server_routes(routes: APIRouter, predictor: Predictor) -> None:
    """Adds the routes that describe the server and its health."""

    @routes.get("/health/live", summary="Check liveness")
    async def live() -> LivenessResponse:
        return LivenessResponse()

    @routes.get(
        "/health/ready",
        summary="Check readiness: the registry has been read",
        responses={503: {"model": ReadinessResponse}},
    )
    async def ready(response: Response) -> ReadinessResponse:
        registry_error = predictor.versions.registry_error
        response.status_code = 200 if registry_error is None else 503
        return ReadinessResponse(ready=registry_error is None)

    @routes.get("", summary="Get the server's metadata", dependencies=_CLIENT)
    async def server() -> ServerMetadata:
        return ServerMetadata()


def _add_model_routes(routes: APIRouter, predictor: Predictor) -> None:
    """Adds the routes that describe a model."""

    @routes.get("/models/{name}", summary="Get a model's metadata", dependencies=_CLIENT)
    @routes.get("/models/{name}/versions/{version}", include_in_schema=False, dependencies=_CLIENT)
    async def metadata(name: str, version: str | None = None) -> ModelMetadata:
        model = predictor.model(name)
        champion = predictor.versions.champion(name)
        _check_version(version, champion.number if champion else None)
        prediction = TensorMetadata(
            name=PREDICTION, datatype="FP64" if model.kind == "regression" else "BYTES", shape=[-1]
        )
        return ModelMetadata(
            name=name,
            versions=[str(champion.number)] if champion else [],
            inputs=[TensorMetadata(name=n, datatype="FP32", shape=[-1, 1]) for n in model.inputs],
            outputs=[prediction, TensorMetadata(name=OUTPUT, datatype="FP64", shape=[-1, -1])],
        )

    @routes.get(
        "/models/{name}/ready",
        summary="Check that a model has a champion",
        responses={503: {"model": ModelReadiness}},
        dependencies=_CLIENT,
    )
    @routes.get("/models/{name}/versions/{version}/ready", include_in_schema=False, dependencies=_CLIENT)
    async def model_ready(response: Response, name: str, version: str | None = None) -> ModelReadiness:
        predictor.model(name)
        champion = predictor.versions.champion(name)
        _check_version(version, champion.number if champion else None)
        response.status_code = 200 if champion else 503
        return ModelReadiness(name=name, ready=champion is not None)


def _add_infer_route(routes: APIRouter, predictor: Predictor) -> None:
    """Adds the route of predictions."""

    @routes.post(
        "/models/{name}/infer",
        summary="Run inference on tensors",
        response_model=InferResponse,
        dependencies=_CLIENT,
        openapi_extra=describe_body(InferRequest, infer_examples(predictor.models.values())),
    )
    @routes.post("/models/{name}/versions/{version}/infer", include_in_schema=False, dependencies=_CLIENT)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        model = predictor.model(name)
        _check_version(version, predictor.champion(name).number)
        body = await request.body()
        number, rows = await predictor.decoders.read(parse_infer_rows, body, predictor.rows.inputs[name])
        answered = await predictor.predict_rows(name, rows, caller_of(request))
        return await predictor.decoders.run(lambda: json_response(_infer_content(model, answered, number)), len(body))


def _infer_content(model: Model, answered: pl.DataFrame, number: str | None) -> InferResponse:
    is_number = model.kind == "regression"
    prediction = answered[PREDICTION].cast(pl.Float64) if is_number else answered[PREDICTION]
    values = answered[OUTPUT].explode()
    outputs: list[dict[str, object]] = [
        {
            "name": PREDICTION,
            "datatype": "FP64" if is_number else "BYTES",
            "shape": [answered.height],
            "data": _json_list(prediction),
        },
        {
            "name": OUTPUT,
            "datatype": "FP64",
            "shape": [answered.height, len(values) // answered.height],
            "data": _json_list(values),
        },
    ]
    response = {"model_name": model.name, "model_version": str(answered["version"][0]), "outputs": outputs}
    # The tensors' data is encoded already.
    return cast(InferResponse, response | ({"id": number} if number else {}))


def _json_list(values: pl.Series) -> orjson.Fragment:
    """Encodes the values as a JSON list, `_JSON_VALUES` at a time, because no other thread runs during an encoding."""
    parts = [
        orjson.dumps(values.slice(begin, _JSON_VALUES).to_list())[1:-1] for begin in range(0, len(values), _JSON_VALUES)
    ]
    return orjson.Fragment(b"[" + b",".join(parts) + b"]")


def _check_version(version: str | None, champion: int | None) -> None:
    """Raises Problem for a requested version that is not the champion."""
    if version is not None and version != str(champion):
        serving = "there is no champion yet" if champion is None else f"the champion is version {champion}"
        raise Problem(404, f"version {version[:20]!r} does not serve; {serving}")
