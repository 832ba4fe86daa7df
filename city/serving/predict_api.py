"""The routes of predictions."""

import io
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import polars as pl
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from city.models.model import Model
from city.models.predictions import CONFIDENCE, HIGH, LOW, OUTPUT, PREDICTION
from city.serving.asked import Ask, AskMany, Came, Inputs, asked_rows, frame_of, parsed
from city.serving.batching import Rows
from city.serving.predictor import Predictor
from city.serving.tensors import Infer, infer_rows
from city.web.decoders import INLINE_BYTES
from city.web.guard import caller_of, needs
from city.web.problems import Problem

_JSON = "application/json"
_PARQUET, _ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
_JSON_VALUES = 20_000
"""Of an answer, encoded in one go."""
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def one(predictor: Predictor) -> Callable[[Request], Awaitable[Response]]:
    """What answers /predict. It reads and checks the body itself, once: FastAPI would do that slower."""
    allowed = needs("client")

    async def predict(request: Request) -> Response:
        """A model's answer to its features, or about an entity whose features are in the online store."""
        began = time.perf_counter()
        caller = await allowed(request)
        body = await _body_of(request)
        if len(body) <= INLINE_BYTES:
            ask = parsed(Ask, body)
        else:
            ask = await predictor.decoders.run(lambda: parsed(Ask, body), len(body))
        try:
            return _json(await predictor.predict(ask, caller, began))
        except Problem as problem:
            model = ask.model_name if ask.model_name in predictor.models else "unknown"
            predictor.metrics.errors.labels(model, str(problem.status)).inc()
            raise

    return predict


async def _body_of(request: Request) -> bytes:
    """The whole body. Starlette's own way, through a generator, takes three times as long for one message."""
    body = b""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


class Ahead:
    """Answers /predict before FastAPI's routing, which would take as long again. There the same function stands for
    the documentation."""

    def __init__(self, app: ASGIApp, predict: Callable[[Request], Awaitable[Response]]) -> None:
        self._app, self._predict = app, predict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST":
            answer = await self._predict(Request(scope, receive))
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def router(predictor: Predictor, predict: Callable[[Request], Awaitable[Response]]) -> APIRouter:
    found = APIRouter(tags=["predictions"], dependencies=[Depends(needs("client"))])
    found.post("/predict", response_model=None, openapi_extra=_body(Ask, _examples(predictor)), summary="One answer")(
        predict
    )

    @found.post(
        "/predict/batch",
        response_model=None,
        summary="Many answers",
        openapi_extra=_body(AskMany, _batch_examples(predictor), {_PARQUET: _BINARY, _ARROW: _BINARY}),
    )
    async def predict_batch(request: Request, model_name: str | None = None) -> Response:
        """Answers to instances as JSON, or to the rows of a Parquet or Arrow body (with `?model_name=`), which come
        back as the same kind: the rows, and the answers beside them."""
        body, media = await request.body(), request.headers.get("content-type", _JSON)
        caller = caller_of(request)
        if media.partition(";")[0].strip() == _JSON:
            asked, rows = await predictor.decoders.read(asked_rows, body, predictor.inputs)
            answered = await predictor.predict_rows(asked.model_name, rows, caller)
            model = predictor.models[asked.model_name]
            return await predictor.decoders.run(
                lambda: _json(_many(model, answered, asked.return_probabilities)), len(body)
            )
        if model_name is None:
            raise Problem(422, "say which model: /predict/batch?model_name=…", [("model_name", "is needed")])
        predictor.model(model_name)
        # However small the body: it may unpack to much.
        frame, rows = await predictor.decoders.run(lambda: _frame_rows(predictor.inputs[model_name], media, body))
        answered = await predictor.predict_rows(model_name, rows, caller)
        return await predictor.decoders.run(lambda: _beside(frame, answered, media))

    @found.post("/feedback", response_model=None, openapi_extra=_body(Came, {}), summary="What came of a prediction")
    async def feedback(request: Request) -> Response:
        """Versions that compete are compared by this. Of any prediction that is recorded. What is told again changes
        nothing; what is told otherwise is refused (409)."""
        body = await request.body()
        came = await predictor.decoders.run(lambda: parsed(Came, body), len(body))
        outcome = came.outcome if isinstance(came.outcome, str) else float(came.outcome)
        return _json(await predictor.feedback.take(came.id, outcome, caller_of(request).name))

    return found


def v2(predictor: Predictor) -> APIRouter:
    """The Open Inference Protocol (V2), as KServe, Triton and MLServer speak it."""
    found = APIRouter(prefix="/v2", tags=["open inference protocol"])
    wants = [Depends(needs("client"))]

    @found.get("/health/live", summary="Whether the server lives")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @found.get("/health/ready", summary="Whether the registry has been read", response_model=None)
    async def ready() -> Response:
        away = predictor.versions.away
        return _json({"ready": away is None}, 200 if away is None else 503)

    @found.get("", summary="The server", dependencies=wants)
    async def server() -> dict[str, Any]:
        return {"name": "city", "version": "2", "extensions": []}

    @found.get("/models/{name}", summary="A model's tensors", dependencies=wants)
    @found.get("/models/{name}/versions/{version}", include_in_schema=False, dependencies=wants)
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        model = predictor.model(name)
        champion = predictor.versions.champion(name)
        _check_version(version, champion.number if champion else None)
        columns = [{"name": n, "datatype": "FP32", "shape": [-1, 1]} for n in model.inputs]
        outputs = [{"name": PREDICTION, "datatype": "FP64" if model.kind == "regression" else "BYTES", "shape": [-1]}]
        return {
            "name": name,
            "versions": [str(champion.number)] if champion else [],
            "platform": "onnx",
            "inputs": columns,
            "outputs": [*outputs, {"name": OUTPUT, "datatype": "FP64", "shape": [-1, -1]}],
        }

    @found.get("/models/{name}/ready", summary="Whether it has a champion", response_model=None, dependencies=wants)
    @found.get("/models/{name}/versions/{version}/ready", include_in_schema=False, dependencies=wants)
    async def model_ready(name: str, version: str | None = None) -> Response:
        predictor.model(name)
        champion = predictor.versions.champion(name)
        _check_version(version, champion.number if champion else None)
        return _json({"name": name, "ready": champion is not None}, 200 if champion else 503)

    @found.post(
        "/models/{name}/infer",
        summary="Answers to tensors",
        response_model=None,
        dependencies=wants,
        openapi_extra=_body(Infer, _infer_examples(predictor)),
    )
    @found.post("/models/{name}/versions/{version}/infer", include_in_schema=False, dependencies=wants)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        model = predictor.model(name)
        _check_version(version, predictor.champion(name).number)
        body = await request.body()
        number, rows = await predictor.decoders.read(infer_rows, body, predictor.inputs[name])
        answered = await predictor.predict_rows(name, rows, caller_of(request))
        return await predictor.decoders.run(lambda: _json(_inferred(model, answered, number)), len(body))

    return found


def _frame_rows(inputs: Inputs, media: str, body: bytes) -> tuple[pl.DataFrame, Rows]:
    frame = frame_of(media, body)
    return frame, inputs.rows(frame)


def _beside(frame: pl.DataFrame, answered: pl.DataFrame, media: str) -> Response:
    """The rows and the answers beside them, as the same kind of body."""
    taken = [name for name in answered.columns if name in frame.columns]
    both = pl.concat([frame.drop(taken), answered], how="horizontal")
    kind = media.partition(";")[0].strip().lower()
    into = io.BytesIO()
    both.write_parquet(into) if kind == _PARQUET else both.write_ipc_stream(into)
    return Response(into.getvalue(), media_type=_PARQUET if kind == _PARQUET else _ARROW)


def _inferred(model: Model, answered: pl.DataFrame, number: str | None) -> dict[str, Any]:
    is_number = model.kind == "regression"
    prediction = answered[PREDICTION].cast(pl.Float64) if is_number else answered[PREDICTION]
    values = answered[OUTPUT].explode()
    outputs: list[dict[str, Any]] = [
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
    return response | ({"id": number} if number else {})


def _json_list(values: pl.Series) -> orjson.Fragment:
    """Encoded some at a time: while values become JSON, no other thread runs."""
    parts = [
        orjson.dumps(values.slice(begin, _JSON_VALUES).to_list())[1:-1] for begin in range(0, len(values), _JSON_VALUES)
    ]
    return orjson.Fragment(b"[" + b",".join(parts) + b"]")


def _check_version(asked: str | None, champion: int | None) -> None:
    if asked is not None and asked != str(champion):
        raise Problem(404, f"version {asked[:20]!r} does not serve; the champion is version {champion}")


def _many(model: Model, answered: pl.DataFrame, probabilities: bool) -> dict[str, Any]:
    columns = ["id", PREDICTION, CONFIDENCE, LOW, HIGH]
    told = answered.with_columns(pl.col(PREDICTION).cast(pl.Float64)) if model.kind == "regression" else answered
    predictions = [
        {name: value for name, value in row.items() if value is not None}
        for row in told.select(columns).iter_rows(named=True)
    ]
    if probabilities and model.kind == "classification":
        for row, output in zip(predictions, answered[OUTPUT].to_list(), strict=True):
            row["probabilities"] = dict(zip(model.label.classes, output, strict=True))
    return {"model": model.name, "version": int(answered["version"][0]), "predictions": predictions}


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type=_JSON)


def _body(kind: type[BaseModel], examples: dict[str, Any], others: dict[str, Any] | None = None) -> dict[str, Any]:
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema = _inlined(schema, schema.pop("$defs", {}))
    json = {"schema": schema} | ({"examples": {name: {"value": v} for name, v in examples.items()}} if examples else {})
    return {"requestBody": {"required": True, "content": {_JSON: json, **(others or {})}}}


def _inlined(schema: Any, known: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(part, known) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(known[schema["$ref"].rpartition("/")[2]], known)
    return {name: _inlined(part, known) for name, part in schema.items()}


def _features(model: Model) -> dict[str, Any]:
    """What a request of a model looks like: a value of each input's kind."""
    examples = {"float": 12.5, "integer": 3, "boolean": False}
    return {name: examples.get(model.view.features[name].kind, 0) for name in model.inputs}


def _examples(predictor: Predictor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for model in predictor.models.values():
        found[model.name] = {"model_name": model.name, "features": _features(model), "return_probabilities": True}
        entity = {name: f"a {name}" for name in model.view.entities}
        found[f"{model.name} of an entity"] = {"model_name": model.name, "entity": entity}
    return found


def _batch_examples(predictor: Predictor) -> dict[str, Any]:
    return {m.name: {"model_name": m.name, "instances": [_features(m)] * 2} for m in predictor.models.values()}


def _infer_examples(predictor: Predictor) -> dict[str, Any]:
    found = {}
    for model in predictor.models.values():
        width = len(model.inputs)
        tensor = {"name": "inputs", "shape": [1, width], "datatype": "FP32", "data": [1.0] * width}
        found[model.name] = {"inputs": [tensor]}
    return found
