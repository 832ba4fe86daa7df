"""A newcomer adds a domain by adding a folder: a tiny one, from its contract to bronze, QuestDB and the graph."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from city import questdb
from city.contracts.registry import contract_of, domain_of, domains
from city.settings import Settings
from city_assets.definitions import build
from tests.domains import extra_domain
from tests.events import iso
from tests.live import consume, send, streaming, trips_in_bronze, until

CONTRACT = """
from datetime import timedelta
from city.contracts import Contract, Count, Field, Mean, Window

BIKES = Contract(
    name="bikes", topic="city.bikes", version=1, description="Bicycles at a counter.", key="counter", event_time="at",
    fields=(
        Field(name="counter", kind="string", description="the counter"),
        Field(name="at", kind="timestamp", description="when"),
        Field(name="bikes", kind="integer", unit="bikes", minimum=0, description="how many"),
        Field(name="trip_id", kind="string", description="which"),
    ),
    windows=(Window(name="bikes_minutes", every=timedelta(minutes=1), by="counter", description="Bikes a minute.",
                    aggregates=(Count("n"), Mean("bikes_mean", "bikes"))),),
)
CONTRACTS = (BIKES,)
"""


@pytest.fixture
def bikes(stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with extra_domain(tmp_path / "more", "bikes", {"contract.py": CONTRACT}, monkeypatch):
        yield


def test_a_folder_is_a_domain(stack: Settings, bikes: None) -> None:
    assert "bikes" in [domain.name for domain in domains()]
    contract = contract_of("city.bikes")
    assert domain_of("bikes").contracts == (contract,)
    event = {"counter": "bridge", "at": iso(datetime.now(UTC)), "bikes": 4, "trip_id": "a"}
    send(stack, contract, json.dumps(event).encode(), json.dumps(event | {"bikes": -1}).encode())
    with streaming(contract, stack) as job:
        until(lambda: questdb.rows(stack.questdb, "SELECT n, bikes_mean FROM bikes_minutes") == [[1, 4.0]])
        until(lambda: questdb.rows(stack.questdb, "SELECT counter, bikes FROM bikes") == [["bridge", 4]])
        assert job.summary()[0]["quarantined"] == 1
        until(lambda: [e["bikes"] for e in consume(stack, "dashboard_events") if e["kind"] == "bikes"] == [4])
    assert trips_in_bronze(stack, contract) == ["a"]
    keys = {spec.key for spec in build().resolve_all_asset_specs()}
    assert {dg.AssetKey(["bronze", "bikes"]), dg.AssetKey(["questdb", "bikes_minutes"])} <= keys
