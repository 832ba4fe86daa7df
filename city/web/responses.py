"""The responses about the server itself: health and tokens."""

from pydantic import BaseModel, ConfigDict

from city.stack.reports import WorkerSummary


class DeclaredResponse(BaseModel):
    # No docstring: each subclass without one of its own would have it as its description in OpenAPI.
    model_config = ConfigDict(use_attribute_docstrings=True)


class ConstantResponse(DeclaredResponse):
    # Fields with a default are always sent. Not set for all responses: Pydantic applies it to the fields of a TypedDict
    # below the response too, also to those that may be absent.
    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class LivenessResponse(ConstantResponse):
    """Whether the server lives."""

    live: bool = True


class ReadinessResponse(DeclaredResponse):
    """Whether the server can answer."""

    ready: bool


class DependencyHealth(DeclaredResponse):
    """Whether a server or a part that the server depends on works."""

    ok: bool
    needed: bool
    """Whether no prediction is possible without it."""
    detail: str


class HealthResponse(ConstantResponse):
    """The health of the server, of its dependencies and of its background loops."""

    live: bool = True
    ready: bool
    at: float
    """The time of the check, in seconds since the epoch."""
    dependencies: dict[str, DependencyHealth]
    workers: list[WorkerSummary]


class TokenResponse(ConstantResponse):
    """A token for the header `Authorization: Bearer` (RFC 6749, section 4.4.3)."""

    access_token: str
    token_type: str = "Bearer"
    expires_in: int
    """Seconds for which the token is valid."""
    scope: str
    """The role of the key."""
