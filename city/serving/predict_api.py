"""HTTP routes of predictions: `/predict`, `/predict/batch` and `/feedback`."""

import io
import time
from collections.abc import Awaitable, Callable
from typing import cast

import polars as pl
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from city.models.exported import THRESHOLD
from city.models.model import Model
from city.models.predictions import CONFIDENCE, HIGH, LOW, OUTPUT, PREDICTION
from city.serving.batching import Rows
from city.serving.frame_body import read_frame
from city.serving.inputs import (
    BatchPredictionRequest,
    FeedbackRequest,
    Inputs,
    PredictionRequest,
    parse_batch_rows,
    parse_body,
)
from city.serving.predictor import Predictor
from city.serving.request_docs import JSON, batch_examples, describe_body, prediction_examples
from city.serving.responses import BatchPrediction, BatchResponse, FeedbackResponse, PredictionResponse
from city.web.decoders import INLINE_BYTES
from city.web.guard import caller_of, needs
from city.web.json_response import json_response
from city.web.problems import Problem

_PARQUET, _ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def predict_endpoint(predictor: Predictor) -> Callable[[Request], Awaitable[Response]]:
    """Returns the endpoint of `/predict`. It parses and validates the body itself, once, because FastAPI is slower at
    that."""
    check_role = needs("client")

    async def predict(request: Request) -> Response:
        """A model's answer to its features, or about an entity whose features are in the online store."""
        arrival = time.perf_counter()
        caller = await check_role(request)
        body = await _read_body(request)
        # `Decoders.run` compares the size too. A closure and a coroutine for each request would cost more than this.
        if len(body) <= INLINE_BYTES:
            content = parse_body(PredictionRequest, body)
        else:
            content = await predictor.decoders.run(lambda: parse_body(PredictionRequest, body), len(body))
        try:
            return json_response(await predictor.predict(content, caller, arrival))
        except Problem as problem:
            predictor.count_error(content.model_name, problem.status)
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


class FastPath:
    """ASGI middleware that answers `/predict` before FastAPI's routing, which would take as long again. The same
    endpoint is also registered with FastAPI, for the documentation."""

    def __init__(self, app: ASGIApp, predict: Callable[[Request], Awaitable[Response]]) -> None:
        self._app, self._predict = app, predict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST":
            response = await self._predict(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def router(predictor: Predictor, predict: Callable[[Request], Awaitable[Response]]) -> APIRouter:
    """Returns the routes of predictions and feedback. `predict` is the endpoint of `/predict`."""
    api = APIRouter(tags=["predictions"], dependencies=[Depends(needs("client"))])
    models = predictor.models.values()
    binary_types = {_PARQUET: _BINARY, _ARROW: _BINARY}
    api.post(
        "/predict",
        response_model=PredictionResponse,
        openapi_extra=describe_body(PredictionRequest, prediction_examples(models)),
        summary="Get one prediction",
    )(predict)

    @api.post(
        "/predict/batch",
        response_model=BatchResponse,
        responses={200: {"content": binary_types}},
        summary="Get a batch of predictions",
        openapi_extra=describe_body(BatchPredictionRequest, batch_examples(models), binary_types),
    )
    async def predict_batch(request: Request, model_name: str | None = None) -> Response:
        """Answers to instances as JSON, or to the rows of a Parquet or Arrow body (with `?model_name=`), which come
        back as the same kind: the rows, and the answers beside them."""
        body, media = await request.body(), request.headers.get("content-type", JSON)
        caller = caller_of(request)
        if media.partition(";")[0].strip() == JSON:
            batch, given = await predictor.decoders.read(parse_batch_rows, body, predictor.rows.inputs)
            model = predictor.model(batch.model_name)
            features, rows = (
                await predictor.rows.rows_of_events(model, given) if isinstance(given, list) else (None, given)
            )
            answered = await predictor.predict_rows(model.name, rows, caller, features=features)
            return await predictor.decoders.run(
                lambda: json_response(_batch_content(model, answered, batch.return_probabilities)), len(body)
            )
        if model_name is None:
            raise Problem(422, "say which model: /predict/batch?model_name=…", [("model_name", "is needed")])
        predictor.model(model_name)
        # The call gives no size, because even a small body may unpack to many rows.
        frame, rows = await predictor.decoders.run(lambda: _read_rows(predictor.rows.inputs[model_name], media, body))
        answered = await predictor.predict_rows(model_name, rows, caller, features=frame)
        return await predictor.decoders.run(lambda: _frame_response(frame, answered, media))

    @api.post(
        "/feedback",
        response_model=FeedbackResponse,
        openapi_extra=describe_body(FeedbackRequest, {}),
        summary="Report the outcome of a prediction",
    )
    async def feedback(request: Request) -> Response:
        """Versions that compete are compared by this. Of any prediction that is recorded. The same outcome again
        changes nothing; another outcome of the same prediction is refused (409)."""
        body = await request.body()
        content = await predictor.decoders.run(lambda: parse_body(FeedbackRequest, body), len(body))
        outcome = content.outcome if isinstance(content.outcome, str) else float(content.outcome)
        return json_response(await predictor.feedback.judge(content.id, outcome, caller_of(request).name))

    return api


def _read_rows(inputs: Inputs, media: str, body: bytes) -> tuple[pl.DataFrame, Rows]:
    frame = read_frame(media, body)
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


def _batch_content(model: Model, answered: pl.DataFrame, probabilities: bool) -> BatchResponse:
    columns = ["id", PREDICTION, CONFIDENCE, LOW, HIGH, THRESHOLD]
    rows = answered.with_columns(pl.col(PREDICTION).cast(pl.Float64)) if model.kind == "regression" else answered
    predictions = [
        cast(BatchPrediction, {name: value for name, value in row.items() if value is not None})
        for row in rows.select(columns).iter_rows(named=True)
    ]
    if probabilities and model.kind == "classification":
        for row, output in zip(predictions, answered[OUTPUT].to_list(), strict=True):
            row["probabilities"] = dict(zip(model.label.classes, output, strict=True))
    return {"model": model.name, "version": int(answered["version"][0]), "predictions": predictions}
