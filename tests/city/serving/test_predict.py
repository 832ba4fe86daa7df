"""Predictions through a real server and a real registry: answers, bad input, experiments, the store, a swap."""

import contextlib
import gzip
import io
import json
import math
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import requests

from city.models import champions
from city.models.registry import Registry
from city.serving import open_inference_api, predict_api, predictor, record
from city.settings import Settings
from city.stack.embedded import settings_at
from city.web import decoders
from tests.city.serving.served import FEATURES, LEVEL, SPEED, put_features, registered, serving, taught
from tests.live import until

CELL = "882a100d2dfffff"


@dataclass
class Server:
    url: str
    config: Settings
    registry: Registry

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        data = body if isinstance(body, bytes | str) else json.dumps(body)
        headers = {"content-type": "application/json"} | options.pop("headers", {})
        return requests.post(self.url + path, data=data, headers=headers, timeout=20, **options)

    def predict(self, **options: Any) -> dict[str, Any]:
        response = self.post("/predict", {"model_name": "speed", "features": FEATURES} | options)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def served(self, model: str = "speed") -> pl.DataFrame:
        return pl.read_delta(str(self.config.lake / "served" / model))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two versions of each model, of which the first is the champion."""
    home = tmp_path_factory.mktemp("home")
    config = settings_at(home, home, body_seconds=1.0, max_body_mb=1.0)
    registry = Registry(config)
    for model in (SPEED, LEVEL):
        registered(registry, model, taught(model))
        registered(registry, model, taught(model, seed=3), champion=False)
    put_features(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(champions, "POLL_SECONDS", 0.2)
        patch.setattr(record, "_WRITE_SECONDS", 0.2)
        with serving(config, [SPEED, LEVEL]) as url:
            yield Server(url, config, registry)


def test_an_answer_has_its_interval_its_version_and_its_reasons(server: Server) -> None:
    answer = server.predict(explain=True)
    assert answer["model"] == "speed"
    assert (answer["version"], answer["role"]) == (1, "champion")
    assert answer["interval"]["low"] < answer["prediction"] < answer["interval"]["high"]
    assert answer["unit"] == "km/h"
    assert answer["contributions"].keys() == set(SPEED.inputs)
    assert answer["base"] + sum(answer["contributions"].values()) == pytest.approx(answer["prediction"], abs=1e-3)
    again = server.predict()
    assert again["cached"]
    assert again["prediction"] == answer["prediction"]
    assert again["id"] != answer["id"]
    listed = server.predict(features=[FEATURES[name] for name in SPEED.inputs])
    assert listed["prediction"] == answer["prediction"]
    level = server.predict(model_name="level", return_probabilities=True, explain=True)
    assert level["prediction"] in level["probabilities"]
    assert sum(level["probabilities"].values()) == pytest.approx(1)
    assert max(level["probabilities"].values()) == level["confidence"]


def test_an_entity_is_answered_by_its_online_features(server: Server) -> None:
    answer = server.predict(features=None, entity={"cell": CELL})
    assert answer["features"] == pytest.approx(FEATURES)
    assert answer["prediction"] == server.predict()["prediction"]
    unknown = server.post("/predict", {"model_name": "speed", "entity": {"cell": "882a100d2bfffff"}})
    assert unknown.status_code == 404
    assert "nothing is known of cell=882a100d2bfffff" in unknown.json()["detail"]


def test_many_rows_as_json_parquet_and_arrow_say_the_same(server: Server) -> None:
    rows = [FEATURES, {**FEATURES, "speed_mean": 40.0}, {**FEATURES, "speed_lag_1": None}]
    as_json = server.post("/predict/batch", {"model_name": "speed", "instances": rows}).json()
    assert len(as_json["predictions"]) == 3
    assert as_json["predictions"][0]["prediction"] == pytest.approx(server.predict()["prediction"], abs=1e-3)
    frame = pl.DataFrame(rows).with_columns(name=pl.Series(["a", "b", "c"]))
    for kind, write, read in (
        ("vnd.apache.parquet", pl.DataFrame.write_parquet, pl.read_parquet),
        ("vnd.apache.arrow.stream", pl.DataFrame.write_ipc_stream, pl.read_ipc_stream),
    ):
        body = io.BytesIO()
        write(frame, body)
        headers = {"content-type": f"application/{kind}"}
        response = server.post("/predict/batch?model_name=speed", body.getvalue(), headers=headers)
        assert response.headers["content-type"] == f"application/{kind}"
        both: pl.DataFrame = read(io.BytesIO(response.content))
        assert both["name"].to_list() == ["a", "b", "c"]
        predictions = [row["prediction"] for row in as_json["predictions"]]
        assert both["prediction"].cast(pl.Float64).to_list() == pytest.approx(predictions)


def test_clients_of_the_open_inference_protocol_are_served(server: Server) -> None:
    url = f"{server.url}/v2"
    assert requests.get(f"{url}/health/ready", timeout=5).json() == {"ready": True}
    about = requests.get(f"{url}/models/speed", timeout=5).json()
    assert [tensor["name"] for tensor in about["inputs"]] == list(SPEED.inputs)
    assert requests.get(f"{url}/models/speed/versions/1/ready", timeout=5).json()["ready"]
    values = [float(FEATURES[name]) for name in SPEED.inputs]
    whole = {"name": "inputs", "shape": [2, len(values)], "datatype": "FP32", "data": [values, values]}
    parts = [
        {"name": n, "shape": [1], "datatype": "FP32", "data": [v]} for n, v in zip(SPEED.inputs, values, strict=True)
    ]
    expected = server.predict()["prediction"]
    for tensors, count in (([whole], 2), (parts, 1)):
        answer = server.post("/v2/models/speed/infer", {"id": "7", "inputs": tensors}).json()
        assert answer["id"] == "7"
        assert answer["model_version"] == "1"
        prediction = answer["outputs"][0]
        assert prediction["shape"] == [count]
        assert prediction["data"] == pytest.approx([expected] * count, abs=1e-3)
    wrong = {"inputs": [{**whole, "shape": [3, len(values)]}]}
    assert server.post("/v2/models/speed/infer", wrong).status_code == 422


BAD: list[tuple[str, Any, int, str, str]] = [
    ("/predict", "{", 400, "", "JSON"),
    ("/predict", {"model_name": "speed"}, 422, "features", "exactly one"),
    ("/predict", {"model_name": "nope", "features": {}}, 404, "", "known: level, speed"),
    (
        "/predict",
        {"model_name": "speed", "features": {**FEATURES, "speed_mean": "fast"}},
        422,
        "features.speed_mean",
        "number",
    ),
    (
        "/predict",
        {"model_name": "speed", "features": {**FEATURES, "vehicle_count": None}},
        422,
        "features.vehicle_count",
        "value",
    ),
    (
        "/predict",
        {"model_name": "speed", "features": {**FEATURES, "speed_maen": 1}},
        422,
        "features.speed_maen",
        "speed_mean",
    ),
    ("/predict", {"model_name": "speed", "features": {"speed_mean": 1}}, 422, "features.vehicle_count", "missing"),
    ("/predict", {"model_name": "speed", "features": [1.0]}, 422, "features", f"{len(FEATURES)} features"),
    (
        "/predict",
        {"model_name": "speed", "features": {**FEATURES, "speed_mean": 1e300}},
        422,
        "features.speed_mean",
        "finite",
    ),
    ("/predict", '{"model_name": "speed", "features": [NaN,1,1,1,1,1,1,1,1,1,1,1]}', 422, "", ""),
    ("/predict", {"model_name": "speed", "entity": {"cell": CELL}, "extra": 1}, 422, "extra", ""),
    ("/predict", {"model_name": "speed", "entity": {"place": "x"}}, 422, "entity", "cell"),
    (
        "/predict/batch",
        {"model_name": "speed", "instances": [FEATURES, {"speed_mean": 1}]},
        422,
        "instances.1.vehicle_count",
        "missing",
    ),
    ("/predict/batch", {"model_name": "speed", "instances": []}, 422, "instances", ""),
    ("/predict/batch?model_name=speed", b"not parquet", 400, "", "is no application/vnd.apache.parquet"),
    ("/feedback", {"id": "none", "outcome": 1}, 404, "", "no prediction"),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "field", "says"), BAD, ids=[f"{b[0]}-{n}" for n, b in enumerate(BAD)]
)
def test_bad_input_is_told_by_its_field_and_its_mend(
    server: Server, path: str, body: Any, status: int, field: str, says: str
) -> None:
    kind = "application/vnd.apache.parquet" if isinstance(body, bytes) else "application/json"
    response = server.post(path, body, headers={"content-type": kind})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    if field:
        assert field in [error["field"] for error in problem["errors"]]
    assert says in json.dumps(problem)
    assert "Traceback" not in response.text
    assert server.predict()["version"] == 1


def test_a_large_and_a_slow_body_are_refused_in_time(server: Server) -> None:
    large = server.post("/predict", b"x" * 1_100_000)
    assert large.status_code == 413
    assert "1 MB" in large.json()["detail"]
    with socket.create_connection(("127.0.0.1", server.config.serve_port), timeout=10) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        answer = slow.recv(4096).decode()
    assert " 408 " in answer.splitlines()[0]
    chunked = requests.post(f"{server.url}/predict", data=(b"y" * 100_000 for _ in range(20)), timeout=10)
    assert chunked.status_code == 413


def packed(server: Server, body: bytes, encoding: str = "gzip") -> requests.Response:
    return server.post("/predict", body, headers={"content-encoding": encoding})


def test_a_body_that_is_gzip_is_read(server: Server) -> None:
    body = json.dumps({"model_name": "speed", "features": FEATURES}).encode()
    plain = server.predict()["prediction"]
    for whole in (gzip.compress(body), gzip.compress(body[:20]) + gzip.compress(body[20:]), gzip.compress(body, 0)):
        for encoding in ("gzip", "GZIP", "x-gzip"):
            response = packed(server, whole, encoding)
            assert response.status_code == 200, response.text
            assert response.json()["prediction"] == plain
    assert packed(server, body, "identity").status_code == 200
    spaced = gzip.compress(body + b" " * 900_000)
    pieces = (spaced[n : n + 7] for n in range(0, len(spaced), 7))
    chunked = requests.post(f"{server.url}/predict", pieces, headers={"content-encoding": "gzip"}, timeout=10)
    assert chunked.json()["prediction"] == plain


def test_other_encodings_are_refused_by_name(server: Server) -> None:
    for encoding in ("br", "zstd", "deflate", "gzip, gzip", "nonsense"):
        response = packed(server, b"anything", encoding)
        assert response.status_code == 415
        assert response.headers["accept-encoding"] == "gzip"
        assert encoding in response.json()["detail"]
    whole = gzip.compress(b"{}" * 999)
    for wrong in (b"{}", whole[:-9], whole[:20], whole + b"more", b"\x1f\x8b"):
        response = packed(server, wrong)
        assert (response.status_code, "not whole gzip" in response.text) == (400, True)
    assert packed(server, b"").status_code == 400


def test_a_decompression_bomb_is_not_unpacked(server: Server) -> None:
    """Bodies within the size limit on their way, which unpacked are of up to 900 MB."""
    zeros = gzip.compress(bytes(10_000_000))
    single = zlib.compressobj(9, wbits=31)
    deep = b"".join(single.compress(bytes(10_000_000)) for _ in range(10)) + single.flush()
    assert max(len(zeros * 90), len(deep)) < 1_000_000
    before = psutil.Process().memory_info().rss
    for bomb in (deep, zeros * 90, gzip.compress(bytes(900_000)) + zeros):
        response = packed(server, bomb)
        assert response.status_code == 413
        assert "1 MB" in response.json()["detail"]
    assert psutil.Process().memory_info().rss - before < 60_000_000
    assert server.predict()["version"] == 1


def batch(server: Server, body: bytes, media: str) -> requests.Response:
    return server.post("/predict/batch?model_name=speed", body, headers={"content-type": media})


def test_large_batches_are_read_and_written_beside_the_event_loop(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, str] = {}

    def watch(module: Any, name: str) -> None:
        function = getattr(module, name)

        def watched(*arguments: Any) -> Any:
            threads[name] = threading.current_thread().name
            return function(*arguments)

        monkeypatch.setattr(module, name, watched)

    for name in ("parse_batch_rows", "_batch_content", "_read_rows", "_frame_response"):
        watch(predict_api, name)
    for name in ("parse_infer_rows", "_infer_content"):
        watch(open_inference_api, name)
    watch(predictor, "build_frames")
    rows = [{**FEATURES, "speed_mean": float(n)} for n in range(1_000)]
    response = server.post("/predict/batch", {"model_name": "speed", "instances": rows})
    assert response.ok, response.text
    assert len(response.json()["predictions"]) == len(rows)
    into = io.BytesIO()
    pl.DataFrame(rows).write_ipc_stream(into, compression="zstd")
    as_arrow = batch(server, into.getvalue(), "application/vnd.apache.arrow.stream")
    answers = pl.read_ipc_stream(io.BytesIO(as_arrow.content))["prediction"].cast(pl.Float64)
    assert answers.to_list() == [row["prediction"] for row in response.json()["predictions"]]
    flat = [float(value) for row in rows for value in row.values()]
    tensor = {"name": "inputs", "shape": [len(rows), len(FEATURES)], "datatype": "FP64", "data": flat}
    assert server.post("/v2/models/speed/infer", {"inputs": [tensor]}).ok
    assert len(threads) == 7
    assert all(thread.startswith("decode") for thread in threads.values()), threads
    threads.clear()
    assert server.post("/predict/batch", {"model_name": "speed", "instances": rows[:2]}).ok
    assert not threads["parse_batch_rows"].startswith("decode")  # a thread's wake-up would take longer


def test_the_largest_batches_are_read_by_another_process(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**FEATURES, "speed_mean": float(n)} for n in range(1_000)]
    flat = [[float(value) for value in row.values()] for row in rows]
    names = list(FEATURES)
    tensors = [
        {"name": name, "shape": [len(rows), 1], "datatype": "FP64", "data": [row[place] for row in flat]}
        for place, name in enumerate(names)
    ]

    def ask() -> list[list[Any]]:
        many = server.post("/predict/batch", {"model_name": "speed", "instances": rows}).json()["predictions"]
        inferred = server.post("/v2/models/speed/infer", {"id": "7", "inputs": tensors}).json()
        assert (inferred["id"], inferred["model_version"]) == ("7", "1")
        outputs = {output["name"]: output["data"] for output in inferred["outputs"]}
        return [[row["prediction"] for row in many], outputs["prediction"], outputs["output"]]

    here = ask()
    monkeypatch.setattr(decoders, "THREAD_BYTES", 10_000)
    first = json.dumps({"model_name": "speed", "instances": rows[:100]})
    assert requests.post(f"{server.url}/predict/batch", first, timeout=120).ok  # the process starts
    assert ask() == here
    children = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    assert [line for line in children if "city.web.json_process" in line]
    unknown = server.post("/predict/batch", {"model_name": "sped", "instances": rows})
    assert (unknown.status_code, "known: level, speed" in unknown.text) == (404, True)


def test_wrong_instances_far_down_a_batch_are_named(server: Server) -> None:
    rows: list[Any] = [FEATURES] * 1_200
    for wrong, field in (
        ({**FEATURES, "speed_mean": "fast"}, "instances.1100.speed_mean"),
        ({**FEATURES, "vehicle_count": None}, "instances.1100.vehicle_count"),
        ("no features", "instances.1100"),
    ):
        response = server.post(
            "/predict/batch", {"model_name": "speed", "instances": [*rows[:1100], wrong, *rows[1100:]]}
        )
        assert response.status_code == 422
        assert [error["field"] for error in response.json()["errors"]] == [field], response.text
    many = server.post("/predict/batch", {"model_name": "speed", "instances": [[1.0]] * 10_001})
    assert (many.status_code, "at most 10000 items" in many.text) == (422, True)
    assert server.post("/predict/batch", b"[" * 100_000).status_code == 400


def test_a_batch_that_unpacks_to_too_much_is_refused(server: Server) -> None:
    zeros = pl.DataFrame({name: [0.0] * 600_000 for name in FEATURES})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    zeros.write_parquet(parquet, compression="zstd")
    zeros.write_ipc_stream(arrow, compression="zstd")
    before = psutil.Process().memory_info().rss
    for body, media in (
        (parquet.getvalue(), "application/vnd.apache.parquet"),
        (arrow.getvalue(), "application/vnd.apache.arrow.stream"),
        (gzip.compress(arrow.getvalue()), "application/vnd.apache.arrow.stream"),
    ):
        encoding = {"content-encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
        headers = {"content-type": media} | encoding
        response = server.post("/predict/batch?model_name=speed", body, headers=headers)
        assert response.status_code == 413, response.text
        assert "600,000 rows: give 1 to 500,000" in response.json()["detail"]
    assert psutil.Process().memory_info().rss - before < 50_000_000


def test_pages_of_other_sites_cannot_ask_here(server: Server) -> None:
    evil = {"origin": "https://evil.example.org"}
    assert server.post("/predict", {"model_name": "speed", "features": FEATURES}, headers=evil).status_code == 403
    rebound = requests.get(f"{server.url}/models", headers={"host": "evil.example.org"}, timeout=5)
    assert rebound.status_code == 403
    own = requests.get(f"{server.url}/models", timeout=20)
    assert own.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in own.headers["content-security-policy"]


def test_what_was_said_and_what_came_is_recorded(server: Server) -> None:
    answer = server.predict(features={**FEATURES, "speed_mean": 33.3})
    until(lambda: answer["id"] in server.served()["id"].to_list())
    row = server.served().row(by_predicate=pl.col("id") == answer["id"], named=True)
    assert (row["version"], row["role"], row["caller"]) == (1, "champion", "local")
    assert json.loads(row["inputs"])["speed_mean"] == pytest.approx(33.3)
    assert float(row["prediction"]) == pytest.approx(answer["prediction"], rel=1e-5)
    judged = server.post("/feedback", {"id": answer["id"], "outcome": answer["prediction"] + 2}).json()
    assert judged["loss"] == pytest.approx(2)
    path = server.config.lake / "outcomes" / "speed"
    until(lambda: answer["id"] in pl.read_delta(str(path))["id"].to_list())
    level = server.predict(model_name="level", return_probabilities=True)
    assert server.post("/feedback", {"id": level["id"], "outcome": "jammed"}).json()["errors"][0]["field"] == "outcome"
    loss = server.post("/feedback", {"id": level["id"], "outcome": "low"}).json()["loss"]
    assert loss == pytest.approx(-math.log(max(level["probabilities"]["low"], 1e-4)), rel=1e-3), "the log loss"


def test_models_say_what_they_are_and_metrics_what_was_asked(server: Server) -> None:
    server.predict()
    by_name = {m["name"]: m for m in requests.get(f"{server.url}/models", timeout=20).json()["models"]}
    assert by_name["speed"]["serving"] == 1
    assert [v["version"] for v in by_name["speed"]["versions"]] == [2, 1]
    assert "champion" in by_name["speed"]["versions"][1]["aliases"]
    assert requests.get(f"{server.url}/models/speed/versions/1/card", timeout=20).text == "# speed"
    text = requests.get(f"{server.url}/metrics", timeout=20).text
    assert 'prediction_requests_total{model="speed",role="champion",version="1"}' in text
    assert 'prediction_latency_seconds_bucket{le="0.01",model="speed"}' in text
    assert 'prediction_errors_total{model="speed",status="422"}' in text
    assert 'model_performance_score{metric="model_mae",model="speed",of="held_out",version="1"} 1.0' in text
    assert 'worker_running{part="server",worker="live"}' in text  # it begins again and again: there is no Kafka here
    for worker in ("champions", "prediction store", "heartbeat"):
        assert f'worker_running{{part="server",worker="{worker}"}} 1.0' in text
        assert f'worker_restarts_total{{part="server",worker="{worker}"}} 0.0' in text
        assert f'worker_last_progress_seconds{{part="server",worker="{worker}"}} ' in text
    health = requests.get(f"{server.url}/health", timeout=20).json()
    assert health["ready"]
    assert {"champions", "live", "prediction store"} <= {worker["name"] for worker in health["workers"]}
    assert health["dependencies"]["workers"] == {"ok": True, "needed": False, "detail": "all run"}
    assert health["dependencies"]["sources"]["ok"]
    assert not health["dependencies"]["kafka"]["ok"]  # none runs in this test


def test_an_ab_test_keeps_keys_on_their_side_and_a_shadow_is_only_recorded(server: Server) -> None:
    put = lambda body: requests.put(f"{server.url}/models/speed/routing", json=body, timeout=20)  # noqa: E731
    assert put({"kind": "canary", "version": 1}).status_code == 409
    assert put({"kind": "canary", "version": 99}).status_code == 404
    assert put({"kind": "ab", "version": 2, "share": 0.5}).status_code == 200
    sides = {key: server.predict(key=key)["version"] for key in map(str, range(40))}
    assert set(sides.values()) == {1, 2}
    assert all(server.predict(key=key)["version"] == version for key, version in sides.items())
    assert put({"kind": "shadow", "version": 2, "share": 1.0}).status_code == 200
    answer = server.predict(features={**FEATURES, "speed_mean": 21.5})
    assert answer["version"] == 1
    until(lambda: server.served().filter(pl.col("id") == answer["id"]).height == 2)
    both = server.served().filter(pl.col("id") == answer["id"]).sort("version")
    assert both["role"].to_list() == ["champion", "shadow"]
    assert both["prediction"].n_unique() == 2
    assert requests.delete(f"{server.url}/models/speed/routing", timeout=20).json()["experiment"] is None
    audit = requests.get(f"{server.url}/audit", timeout=20).json()["entries"]
    assert [entry["what"] for entry in audit[:2]] == ["experiment ended", "experiment begun"]


@contextlib.contextmanager
def load(server: Server, connections: int = 8) -> Iterator[list[tuple[int, Any]]]:
    """Asks without a pause; what was answered, as (status, version)."""
    answers: list[tuple[int, Any]] = []
    over = threading.Event()

    def ask(number: int) -> None:
        with requests.Session() as session:
            count = 0
            while not over.is_set():
                count += 1
                features = {**FEATURES, "speed_mean": number + count / 1000}
                response = session.post(
                    f"{server.url}/predict", json={"model_name": "speed", "features": features}, timeout=20
                )
                answers.append((response.status_code, response.json().get("version")))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join(20)


def test_a_champion_is_swapped_under_load_without_a_failed_request(server: Server) -> None:
    with load(server) as answers:
        until(lambda: len(answers) > 100)
        promoted = server.post("/models/speed/promote", {"version": 2})
        assert promoted.json().get("champion") == 2, promoted.text
        until(lambda: any(version == 2 for _, version in answers))
        server.post("/models/speed/rollback", b"")
        until(lambda: answers[-1][1] == 1)
        time.sleep(0.2)
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {1, 2}


def test_a_canary_that_fails_is_rolled_back_under_load_and_no_request_fails(server: Server) -> None:
    content = broken(taught(SPEED))
    bad = registered(server.registry, SPEED, content, champion=False).number
    with load(server) as answers:
        until(lambda: len(answers) > 50)
        begun = requests.put(
            f"{server.url}/models/speed/routing", json={"kind": "canary", "version": bad, "share": 0.5}, timeout=20
        )
        assert begun.status_code == 200, begun.text
        ended = until(lambda: requests.get(f"{server.url}/models/speed/routing", timeout=20).json()["ended"])
        time.sleep(0.3)
    assert f"version {bad}" in ended
    assert "requests failed" in ended
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {1}  # what it said was no number, so the champion answered
    audit = requests.get(f"{server.url}/audit", timeout=20).json()["entries"]
    assert audit[0]["by"] == "the platform itself"


def broken(content: bytes) -> bytes:
    """The same model, but that it says infinity."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(content)
    last = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"{name}_before" if name == last else name for name in node.output]
    model.graph.initializer.append(helper.make_tensor("nothing", TensorProto.FLOAT, [1], [0.0]))
    model.graph.node.append(helper.make_node("Div", [f"{last}_before", "nothing"], [last]))
    serialized: bytes = model.SerializeToString()
    return serialized


def test_what_was_answered_before_the_end_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_WRITE_SECONDS", 60.0)
    config = settings_at(tmp_path, tmp_path)
    registered(Registry(config), SPEED, taught(SPEED))
    count = 50
    with serving(config, [SPEED]) as url:
        body = {"model_name": "speed", "features": FEATURES}
        ids = [requests.post(f"{url}/predict", json=body, timeout=20).json()["id"] for _ in range(count)]
    rows = pl.read_delta(str(config.lake / "served" / "speed"))
    assert sorted(rows["id"]) == sorted(ids)
    assert rows["cached"].sum() == count - 1
