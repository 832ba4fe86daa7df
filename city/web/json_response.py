"""Builds JSON responses with orjson, which is several times as fast as FastAPI's own encoding."""

from collections.abc import Mapping

import orjson
from fastapi.responses import Response


def json_response(content: Mapping[str, object], status: int = 200) -> Response:
    """Returns the content as a JSON response. FastAPI passes it on as it is, without validation: the declared
    `response_model` of the route is then its documentation, and the type of `content` is checked statically. Times are
    encoded as FastAPI encodes them: UTC is `Z`."""
    return Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), status, media_type="application/json")
