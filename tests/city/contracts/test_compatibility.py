"""Versions of contracts: what breaks whom, in place evolution, and the registry's protocol."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from city import questdb
from city.contracts.compatibility import against_released, breaks
from city.contracts.json_schema import json_schema
from city.contracts.model import Contract, ContractError, Field
from city.contracts.publish import write_schema
from city.contracts.registry import contracts
from city.contracts.schema_registry import SchemaRegistry
from city.settings import CHECKOUT, Settings
from city.streaming.sinks.questdb import ensure_tables
from city.tables.silver import silver_table
from city_assets.environment.contract import QUANTITIES, SENSORS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.lakes import drive, house, stream
from tests.live import until

V1 = replace(
    VEHICLE_POSITIONS,
    version=1,
    fields=tuple(replace(f, nullable=f.name == "trip_id") for f in VEHICLE_POSITIONS.fields),
)
HEADING = Field(name="heading", kind="float", unit="°", minimum=0, maximum=360, nullable=True, description="course")


def changed(**fields: Any) -> Contract:
    """Version 2, with fields replaced (None: left out)."""
    kept = [fields.get(f.name, f) for f in V1.fields]
    more = [f for name, f in fields.items() if name not in {f.name for f in V1.fields}]
    return replace(V1, version=2, fields=tuple(f for f in [*kept, *more] if f is not None))


def said(new: Contract, promised: Any) -> list[str]:
    return [str(b) for b in breaks(json_schema(V1), json_schema(new), 1, replace(new, compatibility=promised))]


@pytest.mark.parametrize("contract", contracts(), ids=lambda c: c.name)
def test_every_contract_keeps_what_it_promised(contract: Contract) -> None:
    assert against_released(contract, CHECKOUT / "docs" / "schemas") == []


def test_adding_an_optional_field_breaks_only_old_readers() -> None:
    new = changed(heading=HEADING)
    assert said(new, "backward") == []
    assert said(new, "forward") == [
        "vehicle_positions v1 cannot read what vehicle_positions v2 writes: field 'heading' is not known to it"
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"heading": replace(HEADING, nullable=False)}, "field 'heading' is missing"),
        ({"trip_id": replace(V1.field("trip_id"), nullable=False)}, "field 'trip_id' may be missing"),
        ({"speed": replace(V1.field("speed"), maximum=150)}, "field 'speed': may be above 150"),
        ({"speed": replace(V1.field("speed"), minimum=5)}, "field 'speed': may be below 5"),
        ({"speed": replace(V1.field("speed"), kind="integer")}, "field 'speed': may be number, where integer is read"),
        ({"trip_id": None}, "field 'trip_id' is not known to it"),
        ({"trip_id": replace(V1.field("trip_id"), choices=("a",))}, "field 'trip_id': may be anything else"),
    ],
)
def test_a_change_that_old_messages_do_not_survive_is_named(changes: dict[str, Any], reason: str) -> None:
    reasons = said(changed(**changes), "backward")
    assert f"vehicle_positions v2 cannot read what vehicle_positions v1 writes: {reason}" in reasons


def test_a_field_that_may_now_be_null_breaks_only_old_readers() -> None:
    new = changed(speed=VEHICLE_POSITIONS.field("speed"))
    assert said(new, "backward") == []
    assert any("field 'speed' may be missing" in change for change in said(new, "forward"))


def test_wider_is_backward_and_narrower_forward() -> None:
    wider = changed(speed=replace(V1.field("speed"), maximum=300))
    assert said(wider, "backward") == []
    assert said(wider, "full") == [
        "vehicle_positions v1 cannot read what vehicle_positions v2 writes: field 'speed': may be above 200"
    ]


def test_the_range_of_a_quantity_counts() -> None:
    assert SENSORS.quantities is not None
    noise = replace(QUANTITIES[2], maximum=120)
    new = replace(
        SENSORS, version=2, quantities=replace(SENSORS.quantities, choices=(*QUANTITIES[:2], noise, *QUANTITIES[3:]))
    )
    (conflict,) = breaks(json_schema(SENSORS), json_schema(new), 1, new)
    assert conflict.change == "field 'value' of noise: may be above 120"


def test_a_released_version_may_not_change(tmp_path: Path) -> None:
    write_schema(V1, tmp_path)
    narrowed = replace(changed(speed=replace(V1.field("speed"), maximum=150)), version=1)
    assert [b.change for b in against_released(narrowed, tmp_path)] == ["field 'speed': may be above 150"]
    with pytest.raises(ContractError, match=r"vehicle_positions v1 is released.*may be above 150.*version=2"):
        write_schema(narrowed, tmp_path)
    write_schema(replace(narrowed, version=2), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "vehicle_positions.v1.json",
        "vehicle_positions.v2.json",
    ]


def test_a_new_field_comes_into_bronze_and_silver_in_place(config: Settings) -> None:
    begin = datetime(2026, 5, 4, 12, tzinfo=UTC)
    old = drive(begin, 0.2)
    stream(config.lake, V1, old, begin + timedelta(hours=1))
    lake = house(config)
    lake.build(silver_table(V1), [date(2026, 5, 4)])
    v2 = changed(heading=HEADING)
    new = [event | {"heading": 90.0} for event in drive(begin + timedelta(seconds=30), 0.2)]
    # Messages of the older version still come, beside those of the new one.
    older = drive(begin + timedelta(seconds=60), 0.2)
    stream(config.lake, v2, [*new, *older], begin + timedelta(hours=2))
    bronze = pl.scan_delta(str(config.lake / "bronze/vehicle_positions")).collect()
    assert bronze["heading"].count() == len(new)
    assert bronze["heading"].null_count() == len(old) + len(older)
    evolved = replace(lake, contracts=lake.contracts | {v2.name: v2})
    evolved.build(silver_table(v2), [date(2026, 5, 4)])
    silver = pl.read_delta(str(config.lake / "silver/vehicle_positions"))
    assert silver["heading"].drop_nulls().unique().to_list() == [90.0]
    assert silver["heading"].null_count() > 0


def test_a_new_field_comes_into_questdb_in_place(stack: Settings) -> None:
    v1 = replace(V1, name="evolving", topic="evolving", windows=())
    v2 = replace(changed(heading=HEADING), name="evolving", topic="evolving", windows=())
    ensure_tables(stack.questdb, v1)
    questdb.execute(stack.questdb, "INSERT INTO evolving (vehicle_id, timestamp, speed) VALUES ('a', now(), 1)")
    ensure_tables(stack.questdb, v2)
    ensure_tables(stack.questdb, v2)
    stored = until(lambda: questdb.rows(stack.questdb, "SELECT vehicle_id, speed, heading FROM evolving"))
    assert stored == [["a", 1.0, None]]


class Registry:
    """A server that speaks the part of the Confluent REST API that we use, as Apicurio does."""

    def __init__(self) -> None:
        self.subjects: dict[str, list[str]] = {}
        self.levels: dict[str, str] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                registry.levels[self.path.rpartition("/")[2]] = self._body()["compatibility"]
                self._answer(200, {})

            def do_POST(self) -> None:
                body, versions = self._body(), registry.subjects.setdefault(self.path.split("/")[2], [])
                if "refused" in body["schema"]:
                    return self._answer(409, {"error_code": 409, "message": "incompatible"})
                if body["schema"] not in versions:
                    versions.append(body["schema"])
                return self._answer(200, {"id": versions.index(body["schema"]) + 1})

            def do_GET(self) -> None:
                self._answer(200, {"schema": registry.subjects[self.path.split("/")[2]][-1]})

            def _body(self) -> Any:
                return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, status: int, body: Any) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def registry() -> Iterator[tuple[Registry, SchemaRegistry]]:
    server = Registry()
    yield server, SchemaRegistry(f"http://127.0.0.1:{server.server.server_port}/")
    server.server.shutdown()


def test_schemas_are_registered_once_with_their_compatibility(registry: tuple[Registry, SchemaRegistry]) -> None:
    server, client = registry
    assert [client.publish(V1), client.publish(V1), client.publish(changed(heading=HEADING))] == [1, 1, 2]
    assert server.levels == {"vehicle_positions-value": "BACKWARD"}
    assert "heading" in client.latest(V1)["properties"]


def test_a_registry_that_refuses_or_is_away_is_told(registry: tuple[Registry, SchemaRegistry]) -> None:
    with pytest.raises(ContractError, match="refuses POST .*409.*incompatible"):
        registry[1].publish(replace(V1, description="refused"))
    with pytest.raises(ContractError, match="no schema registry answers at http://127.0.0.1:1"):
        SchemaRegistry("http://127.0.0.1:1").publish(V1)
