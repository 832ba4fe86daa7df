"""Error answers: RFC 9457 problem details, which name the field and the fix."""

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import NotRequired

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ConfigDict, with_config
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from typing_extensions import TypedDict

log = logging.getLogger(__name__)

MEDIA = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Who are you?",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    413: "Too large",
    415: "Unknown media type",
    422: "Not valid",
    429: "Too many requests",
    500: "Our fault",
    503: "Not available now",
}
_MOST_ERRORS = 20
_MOST_CHARACTERS = 200


@with_config(ConfigDict(use_attribute_docstrings=True))
class FieldError(TypedDict):
    """An error of one field of a request."""

    field: str
    message: str
    """The error with the fix."""


@with_config(ConfigDict(use_attribute_docstrings=True))
class ProblemDetails(TypedDict):
    """An error, as problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: NotRequired[list[FieldError]]
    """Absent where the error is of no field."""


class Problem(Exception):
    """An error that ends a request. `errors` are pairs: the field, and its error with the fix."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, errors, dict(headers or {})

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.status, self.detail, self.errors, self.headers)

    def response(self) -> Response:
        """The answer to the request, as application/problem+json."""
        return _make_response(self.status, self.detail, self.errors, self.headers)


def install(app: FastAPI) -> None:
    """Answers every error of the app as a problem. For an internal error the answer has only a reference."""
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_fault)


def from_pydantic(errors: Sequence[ErrorDetails], within: str = "body") -> Problem:
    """Pydantic's errors as one problem. It does not repeat the values of the request."""
    places: dict[str, list[ErrorDetails]] = {}
    for error in errors:
        # The location of a JSON error is a position in the text, and no field.
        path = "" if error["type"] == "json_invalid" else _field_path(error["loc"])
        places.setdefault(path or within, []).append(error)
    # For a union, each of its types reports errors: the deepest ones are those of the type that the client meant.
    deepest = {
        place: entries for place, entries in places.items() if not any(o.startswith(f"{place}.") for o in places)
    }
    fields = [(place, _error_message(entries)) for place, entries in list(deepest.items())[:_MOST_ERRORS]]
    first = "; ".join(f"{field}: {message}" for field, message in fields[:3])
    status = 400 if any(error["type"] == "json_invalid" for error in errors) else 422
    return Problem(status, f"the request is not as it should be: {first}. See /docs", fields)


def _field_path(location: Sequence[str | int]) -> str:
    parts = [str(part) for part in location if part != "body" and "[" not in str(part)]
    if len(parts) > 1 and parts[-1] in ("bool", "float", "int", "str"):
        parts.pop()
    return ".".join(parts)[:_MOST_CHARACTERS]


def _error_message(errors: Sequence[ErrorDetails]) -> str:
    kinds = {error["type"].partition("_")[0] for error in errors}
    if len(errors) > 1 and kinds <= {"bool", "float", "int", "finite"}:
        return "give a number, true, false or null"
    return str(errors[0]["msg"])[:_MOST_CHARACTERS]


def fault(error: BaseException, where: str) -> Response:
    """Logs an internal error with a reference. Returns the answer 500, which has only the reference.

    A client that has gone while it sent the body is no error of the server. Nobody receives that answer.
    """
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    reference = uuid.uuid4().hex[:12]
    log.error("%s failed (%s)", where, reference, exc_info=error)
    return _make_response(500, f"something went wrong here; the server's log has more under {reference}", (), {})


def _make_response(status: int, detail: str, errors: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> Response:
    body: ProblemDetails = {
        "type": "about:blank",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = [{"field": field, "message": message} for field, message in errors]
    return Response(orjson.dumps(body), status, dict(headers), MEDIA)


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return from_pydantic(error.errors()).response()


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"there is no {request.url.path}; see /docs" if error.status_code == 404 else str(error.detail)
    return _make_response(error.status_code, detail, (), dict(error.headers or {}))


async def _answer_fault(request: Request, error: Exception) -> Response:
    return fault(error, f"{request.method} {request.url.path}")
