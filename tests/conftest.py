"""Fixtures. The embedded Kafka, QuestDB and MQTT broker are started once, when the first integration test asks."""

import contextlib
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from city.models.registry import Registry
from city.settings import CHECKOUT, Settings, settings
from city.stack.embedded import environment, running, settings_at
from city.stack.part import Part
from tests.faults import FaultTable

_DATA = os.environ.get("CITY_DATA_DIR") or str(CHECKOUT.parent / "shared" / "data")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uses the stack is an integration test, and runs after all that do not."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker("integration")
    items.sort(key=lambda item: item.get_closest_marker("integration") is not None)


@pytest.fixture(scope="session")
def table() -> Iterator[FaultTable]:
    """The faults of all tests of a run."""
    made = FaultTable()
    yield made
    if made.rows:
        made.show()


@pytest.fixture(scope="session")
def stack_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, dict[str, Part]]]:
    cache = settings().cache or CHECKOUT / ".city" / "cache"
    config = settings_at(tmp_path_factory.mktemp("stack"), cache)
    with pytest.MonkeyPatch.context() as patch:
        # QuestDB deletes the files of a dropped table when it looks next: by itself, every half minute.
        patch.setenv("QDB_CAIRO_WAL_PURGE_INTERVAL", "2000")
        patch.setenv("QDB_DEV_MODE_ENABLED", "true")  # lets a test suspend a table
        with running(config, "kafka", "questdb", "mqtt") as parts:
            yield config, parts


@pytest.fixture
def stack(
    stack_parts: tuple[Settings, dict[str, Part]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings of the shared servers, with a lake and a run folder of the test's own."""
    config, _ = stack_parts
    yield from _use(
        config.model_copy(
            update={
                "home": tmp_path,
                "kafka_address": str(config.kafka),
                "questdb_address": str(config.questdb),
                "mqtt_address": str(config.mqtt),
            }
        ),
        monkeypatch,
    )


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of an empty home, without servers."""
    yield from _use(settings_at(tmp_path, CHECKOUT / ".city" / "cache"), monkeypatch)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data (CITY_DATA_DIR)."""
    folder = Path(_DATA)
    if not folder.exists():
        pytest.skip(f"the real data is not at {folder}: set CITY_DATA_DIR")
    return folder


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """Coverage looks away: for a test of what is right over many thousands of steps, each line of which other tests
    measure. Tracing them would take as long as they do."""
    tracing = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracing)


@pytest.fixture(scope="session", autouse=True)
def _migrated_registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow creates and migrates each new database for seconds: here one a session, and the others begin as a copy of
    it when MLflow is first asked for them."""
    template, lock, ask = tmp_path_factory.getbasetemp() / "mlflow-template", threading.Lock(), Registry._client

    @contextlib.contextmanager
    def client(registry: Registry) -> Iterator[Any]:
        file = Path(registry.uri.removeprefix("sqlite:///"))
        if registry.uri.startswith("sqlite:///") and file.parent.exists():
            with lock:
                if not template.exists():
                    template.mkdir()
                    with ask(Registry(Settings(_env_file=None, home=template))) as made:
                        made.search_experiments()
                if not file.exists():
                    first, copy = sqlite3.connect(template / "mlflow" / "mlflow.db"), sqlite3.connect(file)
                    with contextlib.closing(first), contextlib.closing(copy):
                        first.backup(copy)
        with ask(registry) as server:
            yield server

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "_client", client)
        yield


def _use(config: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    for name in [name for name in os.environ if name.startswith("CITY_")]:
        monkeypatch.delenv(name)
    for name, value in environment(config).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield config
    settings.cache_clear()
