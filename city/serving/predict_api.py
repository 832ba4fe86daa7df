"""HTTP routes of predictions: `/predict`, `/predict/batch`, `/feedback` and the Open Inference Protocol."""

import io
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import orjson
import polars as pl
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from city.models.model import Model
from city.models.predictions import CONFIDENCE, HIGH, LOW, OUTPUT, PREDICTION
from city.serving.batching import Rows
from city.serving.inputs import Ask, AskMany, Came, Inputs, asked_rows, frame_of, parse_body
from city.serving.predictor import Predictor
from city.serving.responses import (
    BatchPrediction,
    BatchResponse,
    FeedbackResponse,
    InferResponse,
    ModelMetadata,
    ModelReadiness,
    PredictionResponse,
    ServerMetadata,
    TensorMetadata,
)
from city.serving.tensors import Infer, infer_rows
from city.web.decoders import INLINE_BYTES
from city.web.guard import caller_of, needs
from city.web.json_response import json_response
from city.web.problems import Problem
from city.web.responses import LivenessResponse, ReadinessResponse

_JSON = "application/json"
_PARQUET, _ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
_JSON_VALUES = 20_000
"""Number of values of a response that are encoded at a time."""
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def one(predictor: Predictor) -> Callable[[Request], Awaitable[Response]]:
    """Returns the endpoint of `/predict`. It parses and validates the body itself, once, because FastAPI is slower at
    that."""
    allowed = needs("client")

    async def predict(request: Request) -> Response:
        """A model's answer to its features, or about an entity whose features are in the online store."""
        began = time.perf_counter()
        caller = await allowed(request)
        body = await _read_body(request)
        if len(body) <= INLINE_BYTES:
            ask = parse_body(Ask, body)
        else:
            ask = await predictor.decoders.run(lambda: parse_body(Ask, body), len(body))
        try:
            return json_response(await predictor.predict(ask, caller, began))
        except Problem as problem:
            model = ask.model_name if ask.model_name in predictor.models else "unknown"
            predictor.metrics.errors.labels(model, str(problem.status)).inc()
            raise

    return predict


async def _read_body(request: Request) -> bytes:
    """Reads the whole body. Starlette's own way, through a generator, takes three times as long for one message."""
    body = b""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


class Ahead:
    """ASGI middleware that answers `/predict` before FastAPI's routing, which would take as long again. The same
    endpoint is also registered with FastAPI, for the documentation."""

    def __init__(self, app: ASGIApp, predict: Callable[[Request], Awaitable[Response]]) -> None:
        self._app, self._predict = app, predict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST":
            answer = await self._predict(Request(scope, receive))
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def router(predictor: Predictor, predict: Callable[[Request], Awaitable[Response]]) -> APIRouter:
    """Returns the routes of predictions and feedback. `predict` is the endpoint of `/predict`."""
    api = APIRouter(tags=["predictions"], dependencies=[Depends(needs("client"))])
    api.post(
        "/predict",
        response_model=PredictionResponse,
        openapi_extra=_body(Ask, _examples(predictor)),
        summary="One answer",
    )(predict)

    @api.post(
        "/predict/batch",
        response_model=BatchResponse,
        responses={200: {"content": {_PARQUET: _BINARY, _ARROW: _BINARY}}},
        summary="Many answers",
        openapi_extra=_body(AskMany, _batch_examples(predictor), {_PARQUET: _BINARY, _ARROW: _BINARY}),
    )
    async def predict_batch(request: Request, model_name: str | None = None) -> Response:
        """Answers to instances as JSON, or to the rows of a Parquet or Arrow body (with `?model_name=`), which come
        back as the same kind: the rows, and the answers beside them."""
        body, media = await request.body(), request.headers.get("content-type", _JSON)
        caller = caller_of(request)
        if media.partition(";")[0].strip() == _JSON:
            batch, rows = await predictor.decoders.read(asked_rows, body, predictor.inputs)
            answered = await predictor.predict_rows(batch.model_name, rows, caller)
            model = predictor.models[batch.model_name]
            return await predictor.decoders.run(
                lambda: json_response(_batch_content(model, answered, batch.return_probabilities)), len(body)
            )
        if model_name is None:
            raise Problem(422, "say which model: /predict/batch?model_name=…", [("model_name", "is needed")])
        predictor.model(model_name)
        # The call gives no size, because even a small body may unpack to many rows.
        frame, rows = await predictor.decoders.run(lambda: _read_rows(predictor.inputs[model_name], media, body))
        answered = await predictor.predict_rows(model_name, rows, caller)
        return await predictor.decoders.run(lambda: _frame_response(frame, answered, media))

    @api.post(
        "/feedback",
        response_model=FeedbackResponse,
        openapi_extra=_body(Came, {}),
        summary="What came of a prediction",
    )
    async def feedback(request: Request) -> Response:
        """Versions that compete are compared by this. Of any prediction that is recorded. The same outcome again
        changes nothing; another outcome of the same prediction is refused (409)."""
        body = await request.body()
        report = await predictor.decoders.run(lambda: parse_body(Came, body), len(body))
        outcome = report.outcome if isinstance(report.outcome, str) else float(report.outcome)
        return json_response(await predictor.feedback.judge(report.id, outcome, caller_of(request).name))

    return api


def v2(predictor: Predictor) -> APIRouter:
    """Returns the routes of the Open Inference Protocol (V2), which KServe, Triton and MLServer also implement."""
    api = APIRouter(prefix="/v2", tags=["open inference protocol"])
    wants = [Depends(needs("client"))]

    @api.get("/health/live", summary="Whether the server lives")
    async def live() -> LivenessResponse:
        return LivenessResponse()

    @api.get(
        "/health/ready",
        summary="Whether the registry has been read",
        responses={503: {"model": ReadinessResponse}},
    )
    async def ready(response: Response) -> ReadinessResponse:
        away = predictor.versions.away
        response.status_code = 200 if away is None else 503
        return ReadinessResponse(ready=away is None)

    @api.get("", summary="The server", dependencies=wants)
    async def server() -> ServerMetadata:
        return ServerMetadata()

    @api.get("/models/{name}", summary="A model's tensors", dependencies=wants)
    @api.get("/models/{name}/versions/{version}", include_in_schema=False, dependencies=wants)
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

    @api.get(
        "/models/{name}/ready",
        summary="Whether it has a champion",
        responses={503: {"model": ModelReadiness}},
        dependencies=wants,
    )
    @api.get("/models/{name}/versions/{version}/ready", include_in_schema=False, dependencies=wants)
    async def model_ready(response: Response, name: str, version: str | None = None) -> ModelReadiness:
        predictor.model(name)
        champion = predictor.versions.champion(name)
        _check_version(version, champion.number if champion else None)
        response.status_code = 200 if champion else 503
        return ModelReadiness(name=name, ready=champion is not None)

    @api.post(
        "/models/{name}/infer",
        summary="Answers to tensors",
        response_model=InferResponse,
        dependencies=wants,
        openapi_extra=_body(Infer, _infer_examples(predictor)),
    )
    @api.post("/models/{name}/versions/{version}/infer", include_in_schema=False, dependencies=wants)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        model = predictor.model(name)
        _check_version(version, predictor.champion(name).number)
        body = await request.body()
        number, rows = await predictor.decoders.read(infer_rows, body, predictor.inputs[name])
        answered = await predictor.predict_rows(name, rows, caller_of(request))
        return await predictor.decoders.run(lambda: json_response(_infer_content(model, answered, number)), len(body))

    return api


def _read_rows(inputs: Inputs, media: str, body: bytes) -> tuple[pl.DataFrame, Rows]:
    frame = frame_of(media, body)
    return frame, inputs.rows(frame)


def _frame_response(frame: pl.DataFrame, answered: pl.DataFrame, media: str) -> Response:
    """Returns the rows with the answers beside them, in the format of the request's body. An answer's column replaces
    a column of the same name."""
    replaced = [name for name in answered.columns if name in frame.columns]
    joined = pl.concat([frame.drop(replaced), answered], how="horizontal")
    kind = media.partition(";")[0].strip().lower()
    content = io.BytesIO()
    joined.write_parquet(content) if kind == _PARQUET else joined.write_ipc_stream(content)
    return Response(content.getvalue(), media_type=_PARQUET if kind == _PARQUET else _ARROW)


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


def _batch_content(model: Model, answered: pl.DataFrame, probabilities: bool) -> BatchResponse:
    columns = ["id", PREDICTION, CONFIDENCE, LOW, HIGH]
    rows = answered.with_columns(pl.col(PREDICTION).cast(pl.Float64)) if model.kind == "regression" else answered
    predictions = [
        cast(BatchPrediction, {name: value for name, value in row.items() if value is not None})
        for row in rows.select(columns).iter_rows(named=True)
    ]
    if probabilities and model.kind == "classification":
        for row, output in zip(predictions, answered[OUTPUT].to_list(), strict=True):
            row["probabilities"] = dict(zip(model.label.classes, output, strict=True))
    return {"model": model.name, "version": int(answered["version"][0]), "predictions": predictions}


def _body(
    kind: type[BaseModel], examples: Mapping[str, object], others: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Describes a JSON body for OpenAPI. `others` are further content types and their schemas."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema = _inline_references(schema, schema.pop("$defs", {}))
    json = {"schema": schema} | ({"examples": {name: {"value": v} for name, v in examples.items()}} if examples else {})
    return {"requestBody": {"required": True, "content": {_JSON: json, **(others or {})}}}


def _inline_references(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inline_references(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline_references(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inline_references(part, definitions) for name, part in schema.items()}


def _example_features(model: Model) -> dict[str, bool | float]:
    """Returns an example value of each input's kind, by input."""
    examples: dict[str, bool | float] = {"float": 12.5, "integer": 3, "boolean": False}
    return {name: examples.get(model.view.features[name].kind, 0) for name in model.inputs}


def _examples(predictor: Predictor) -> dict[str, object]:
    examples: dict[str, object] = {}
    for model in predictor.models.values():
        examples[model.name] = {
            "model_name": model.name,
            "features": _example_features(model),
            "return_probabilities": True,
        }
        entity = {name: f"a {name}" for name in model.view.entities}
        examples[f"{model.name} of an entity"] = {"model_name": model.name, "entity": entity}
    return examples


def _batch_examples(predictor: Predictor) -> dict[str, object]:
    return {m.name: {"model_name": m.name, "instances": [_example_features(m)] * 2} for m in predictor.models.values()}


def _infer_examples(predictor: Predictor) -> dict[str, object]:
    examples: dict[str, object] = {}
    for model in predictor.models.values():
        width = len(model.inputs)
        tensor = {"name": "inputs", "shape": [1, width], "datatype": "FP32", "data": [1.0] * width}
        examples[model.name] = {"inputs": [tensor]}
    return examples
