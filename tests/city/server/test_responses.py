"""The API as a client knows it: paths, parameters, and the keys of each response."""

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from jsonschema import Draft202012Validator
from starlette.types import ASGIApp, Message, Scope
from syrupy.assertion import SnapshotAssertion

from city import questdb
from city.alerts.model import Finding
from city.alerts.store import OVERVIEW
from city.live.facts import Fact
from city.models.registry import Registry
from city.server import app as app_module
from city.server import city_api
from city.server.state import City
from city.settings import Settings
from city.stack.progress import Samples
from city.stack.state import STREAM, SUPERVISOR, identity
from city.streaming.report import StreamReport
from city.web.keys import Keys
from city_assets.traffic.models import CONGESTION, speed_model
from tests.city.serving.served import FEATURES, put_features, registered, taught
from tests.city.stack.histories import write_progress

CELL = "882a100d2dfffff"
SPEED = speed_model(15)
SPEED_FEATURES = {name: FEATURES[name] for name in SPEED.inputs}


class Client:
    """Calls the application without a server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def request(self, method: str, path: str, body: Any = None, form: dict[str, str] | None = None) -> Any:
        path, _, query = path.partition("?")
        content = urlencode(form).encode() if form else json.dumps(body).encode() if body is not None else b""
        media = b"application/x-www-form-urlencoded" if form else b"application/json"
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", media)],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": content}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        payload = b"".join(message.get("body", b"") for message in sent)
        assert sent[0]["status"] in (200, 503), (path, sent[0]["status"], payload[:500])
        return json.loads(payload)


def keys_of(value: Any) -> Any:
    """The keys of a payload, with the kinds of its values. A list is that of its first entry."""
    if isinstance(value, dict):
        return {name: keys_of(part) for name, part in sorted(value.items())}
    if isinstance(value, list):
        return [keys_of(value[0])] if value else []
    if isinstance(value, bool) or value is None:
        return str((value is not None and "boolean") or "null")
    return "number" if isinstance(value, int | float) else "text"


def write_reports(config: Settings) -> None:
    """The reports of a supervisor and of a stream, as files of this process."""
    part = {"address": "127.0.0.1:1", "state": "running", "last_error": None, "restarts": 1}
    samples = Samples()
    samples.add(time.time(), 5)
    report = StreamReport("vehicle_positions", rows=5)
    worker = {"name": "w", "state": "running", "restarts": 0, "items": 1, "began": time.time()}
    worker |= {"last_progress": time.time(), "stall_seconds": 60.0, "last_error": None}
    loops = {"loops": {"bridge": "127.0.0.1:2"}}
    beat = {"at": time.time(), "events": 5, "events_per_second": 1.0, "lag": 2, "last_error": None}
    beat |= {"samples": samples.content(), "workers": [worker]}
    contents: dict[str, dict[str, Any]] = {
        SUPERVISOR: {"parts": {"kafka": {**identity(), **part}, "simulators": {**identity(), **part, **loops}}},
        "simulators.json": beat,
        "bridge.json": beat,
        STREAM: {"at": time.time(), "started": time.time(), "ended": False, "failure": None, "failed": False}
        | {"crashes": 0, "streams": [report.summary()], "workers": [worker]},
        "server.json": beat | {"alarm_channels": {"webhook": "1 waiting"}},
    }
    config.run.mkdir(parents=True, exist_ok=True)
    write_progress(config, 62)
    for name, content in contents.items():
        (config.run / name).write_text(json.dumps({**identity(), **content}))


def fill_live(city: City) -> None:
    """A row in each layer, and a score."""
    now = datetime.now(UTC).isoformat()
    for state in city.live.states.values():
        fields = {
            state.layer.key: CELL,
            state.layer.time: now,
            **dict.fromkeys(state.layer.columns, 9.5),
            "speed_mean": 9.5,
            "vehicle_count": 7,
        }
        state.take(state.layer.row(fields), time.time() * 1000)
    city.live._feed.append({"model": "m", "id": "1", "timestamp": now, "score": 0.5})


def past(address: str, sql: str, **_: Any) -> list[list[Any]]:
    """What QuestDB has in each of the queries of history."""
    at = "2027-01-15T08:00:00.000000Z"
    if "longitude" in sql:
        return [[at, "v1", -73.9, 40.7, 20.5]]
    if "count_distinct" in sql:
        return [[at, 21.5, 7.0]]
    return [[at, CELL, 7, 9.5]]


def take_models(config: Settings) -> None:
    """A model of each kind, and a second version of one."""
    registry = Registry(config)
    registered(registry, CONGESTION, taught(CONGESTION))
    registered(registry, SPEED, taught(SPEED))
    registered(registry, SPEED, taught(SPEED, seed=1), champion=False)
    put_features(config, CELL)


async def ask_every_route(city: City, client: Client, secret: str) -> dict[str, Any]:
    """The response of each route, by method and path."""
    payloads: dict[str, Any] = {}

    async def ask(name: str, path: str | None = None, **body: Any) -> Any:
        method, _, route = name.partition(" ")
        payloads[name] = await client.request(method, path or route, **body)
        return payloads[name]

    speed, level = SPEED.name, CONGESTION.name
    for route in ("/health", "/health/live", "/health/ready", "/v2", "/v2/health/live", "/v2/health/ready"):
        await ask(f"GET {route}")
    for route in ("config", "stats", "operations", "checks", "today", "alarms", "current-traffic", "predictions"):
        await ask(f"GET /api/{route}")
    for route in ("hotspots", "series", "export/kepler", "live/vehicles", "live/cells", "live/scores"):
        await ask(f"GET /api/{route}")
    await ask("GET /api/cell/{cell}", f"/api/cell/{CELL}")
    await ask("GET /api/historical")
    moments = "start=2027-01-15T08:00:00Z&end=2027-01-15T08:05:00Z"
    await ask("GET /api/historical/vehicles", f"/api/historical/vehicles?{moments}")
    credentials = {"grant_type": "client_credentials", "client_id": "ada", "client_secret": secret}
    await ask("POST /token", form=credentials)
    number = payloads["GET /api/alarms"]["alarms"][0]["id"]
    for change, body in (("acknowledge", {"note": "seen"}), ("assign", {"to": "Ada"}), ("clear", {})):
        await ask(f"POST /api/alarms/{{number}}/{change}", f"/api/alarms/{number}/{change}", body=body)
    await ask("GET /api/alarms/{number}/history", f"/api/alarms/{number}/history")
    features = {"model_name": speed, "features": SPEED_FEATURES}
    answer = await ask("POST /predict", body=features | {"explain": True})
    await ask(
        "POST /predict of a class", "/predict", body=features | {"model_name": level, "return_probabilities": True}
    )
    await ask("POST /predict of an entity", "/predict", body={"model_name": speed, "entity": {"cell": CELL}})
    batch = {"model_name": level, "instances": [SPEED_FEATURES], "return_probabilities": True}
    await ask("POST /predict/batch", body=batch)
    await ask("POST /predict/batch of a number", "/predict/batch", body=batch | {"model_name": speed})
    await ask("POST /feedback", body={"id": answer["id"], "outcome": 20.0})
    await ask("GET /v2/models/{name}", f"/v2/models/{speed}")
    await ask("GET /v2/models/{name}/ready", f"/v2/models/{speed}/ready")
    tensor = {"name": "inputs", "shape": [1, len(SPEED.inputs)], "datatype": "FP32", "data": [1.0] * len(SPEED.inputs)}
    await ask("POST /v2/models/{name}/infer", f"/v2/models/{speed}/infer", body={"inputs": [tensor], "id": "7"})
    path = f"/models/{speed}/routing"
    await ask("GET /models/{name}/routing", path)
    await ask("PUT /models/{name}/routing", path, body={"kind": "ab", "version": 2, "share": 0.5})
    await ask("GET /models")
    await ask("GET /models/{name}", f"/models/{speed}")
    trial = city.predictor.routes.trial(speed, 1)
    assert trial is not None
    for at in range(30):
        for role in ("champion", "b"):
            trial.count_outcome(time.time() + at, role, 1.0 + at % 3)
    await ask("GET /models/{name}/routing compared", path)
    await ask("PUT /models/{name}/routing of a canary", path, body={"kind": "canary", "version": 2})
    trial = city.predictor.routes.trial(speed, 1)
    assert trial is not None
    for _ in range(30):
        trial.compare_losses(1.0, 1.0, 1.0)
    await ask("GET /models/{name}/routing of a canary", path)
    await ask("DELETE /models/{name}/routing", path)
    await ask("POST /models/{name}/promote", f"/models/{speed}/promote", body={"version": 2})
    await ask("POST /models/{name}/rollback", f"/models/{speed}/rollback")
    await ask("GET /audit")
    return payloads


@pytest.fixture
def payloads(config: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    cities: list[City] = []

    def made(*arguments: Any) -> City:
        cities.append(City(*arguments))
        return cities[-1]

    monkeypatch.setattr(app_module, "City", made)
    monkeypatch.setattr(questdb, "rows", past)
    fact = Fact("vehicles", "One vehicle.", "vehicles", 1.0, "vehicles", None)
    monkeypatch.setattr(city_api, "facts", lambda config: [fact])
    monkeypatch.setattr(city_api, "newest_drift", lambda config: [("traffic_features", "speed_mean", "psi", 0.1)])
    take_models(config)
    secret = Keys(config).add("ada", "admin", days=1)
    client = Client(app_module.build(config))
    (city,) = cities
    fill_live(city)
    failed = {"asset": "bronze/sensors", "check": "rows", "severity": "error", "says": "none", "at": None, "link": "x"}
    checks = {"passed": ["a/b"], "failed": {"bronze/sensors/rows": failed}}
    finding = Finding("check/a/b", "error", "a is wrong", "a", {"rows": 0}, labels={"cell": CELL})
    city.alert_store().sync_findings([finding], remember={OVERVIEW: checks})

    async def run() -> dict[str, Any]:
        await city.predictor.versions.start()
        await city.predictor.feedback.recover()
        write_reports(config)  # a report is fresh for some seconds
        try:
            return await ask_every_route(city, client, secret)
        finally:
            city.predictor.versions.stop()

    return asyncio.run(run())


def routes_of(document: dict[str, Any]) -> dict[str, Any]:
    """The parameters and the media types of the body, by method and path."""
    routes = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names = [
                f"{parameter['in']} {parameter['name']}{', required' if parameter['required'] else ''}"
                for parameter in operation.get("parameters", [])
            ]
            body = list(operation.get("requestBody", {}).get("content", {}))
            routes[f"{method.upper()} {path}"] = {"parameters": sorted(names), "body": sorted(body)}
    return routes


def media_types(operation: dict[str, Any]) -> dict[str, Any]:
    """The content of an operation's successful response, by media type."""
    content: dict[str, Any] = operation["responses"]["200"]["content"]
    return content


def validator(document: dict[str, Any], method: str, path: str) -> Draft202012Validator:
    """Validates a response by the declaration of its route, which must name every field."""
    templates = [
        (template, operations)
        for template, operations in document["paths"].items()
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
    ]
    (_, operations) = min(templates, key=lambda pair: pair[0].count("{"))
    schemas = {
        name: schema | {"additionalProperties": schema.get("additionalProperties", False)}
        if "properties" in schema
        else schema
        for name, schema in document["components"]["schemas"].items()
    }
    schema = media_types(operations[method.lower()])["application/json"]["schema"]
    return Draft202012Validator(schema | {"components": {"schemas": schemas}})


def test_paths_and_parameters_are_unchanged(config: Settings, snapshot: SnapshotAssertion) -> None:
    client = Client(app_module.build(config))
    document = asyncio.run(client.request("GET", "/openapi.json"))
    assert routes_of(document) == snapshot


def test_every_route_declares_its_response() -> None:
    for path, operations in app_module.document()["paths"].items():
        for method, operation in operations.items():
            for media, content in media_types(operation).items():
                schema = content["schema"]
                assert media != "application/json" or "$ref" in schema or "anyOf" in schema, (method, path)
                assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]


def test_every_route_answers_with_the_keys_that_it_always_had(
    payloads: dict[str, Any], snapshot: SnapshotAssertion
) -> None:
    assert {name: keys_of(payload) for name, payload in payloads.items()} == snapshot
    document = app_module.document()
    for name, payload in payloads.items():
        method, path = name.split()[:2]
        errors = [error.message for error in validator(document, method, path).iter_errors(payload)]
        assert not errors, name
