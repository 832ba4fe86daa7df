"""The API's OpenAPI document, completed by what FastAPI does not know: errors, and the messages of the WebSocket."""

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from city.live.messages import STREAM_MESSAGE
from city.web.problems import MEDIA, ProblemDetails

_REFERENCE = "#/components/schemas/{model}"
_PROBLEM = {
    "description": "What was wrong, as problem details (RFC 9457)",
    "content": {MEDIA: {"schema": {"$ref": _REFERENCE.format(model=ProblemDetails.__name__)}}},
}
_UNUSED = ("HTTPValidationError", "ValidationError")
"""FastAPI's own schemas of an invalid request, which the server answers as a problem instead."""


class Api(FastAPI):
    """The application with the complete document at /openapi.json."""

    def openapi(self) -> dict[str, Any]:
        """Returns the document, which is made at the first call."""
        if self.openapi_schema is None:
            self.openapi_schema = _complete(super().openapi())
        return self.openapi_schema


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _PROBLEM
    for name in _UNUSED:
        schemas.pop(name, None)
    message = STREAM_MESSAGE.json_schema(ref_template=_REFERENCE)
    problem = TypeAdapter(ProblemDetails).json_schema(ref_template=_REFERENCE)
    for schema in (message, problem):
        schemas |= schema.pop("$defs")
    schemas |= {"StreamMessage": message, ProblemDetails.__name__: problem}
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document
