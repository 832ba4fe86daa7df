"""The stored street network."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from city.settings import Settings
from simulators.world import street_store, streets


@pytest.fixture
def alone(config: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a cache of their own."""
    monkeypatch.setattr(streets, "_network", [])
    return config.model_copy(update={"cache": config.home / "cache"})


def test_the_first_process_stores_the_network_and_the_next_reads_it(
    alone: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    street_store.load_streets(alone)
    built = streets.streets()
    monkeypatch.setattr(street_store, "build_streets", lambda: pytest.fail("it was stored"))
    street_store.load_streets(alone)
    stored = streets.streets()
    assert stored is not built
    for field in fields(stored):
        assert np.array_equal(getattr(stored, field.name), getattr(built, field.name))


def test_a_broken_file_is_built_again(alone: Settings) -> None:
    street_store.load_streets(alone)
    (path,) = (alone.home / "cache").glob("streets-*.npz")
    whole = path.read_bytes()
    for broken in (b"", whole[:5000], b"not a zip"):
        path.write_bytes(broken)
        street_store.load_streets(alone)
        assert path.stat().st_size == len(whole)
        assert len(streets.streets().crossings) > 500


def test_another_release_builds_its_own_network(alone: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    street_store.load_streets(alone)
    other = alone.home / "streets.py"
    other.write_text("# of another release")
    monkeypatch.setattr(street_store.module, "__file__", str(other))
    monkeypatch.setattr(street_store, "build_streets", lambda: pytest.fail("was built"))
    with pytest.raises(pytest.fail.Exception, match="was built"):
        street_store.load_streets(alone)


def test_a_store_that_fails_leaves_nothing(alone: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, **arrays: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    street_store.load_streets(alone)
    assert list((alone.home / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_obstacle(alone: Settings) -> None:
    alone.home.mkdir(parents=True, exist_ok=True)
    (alone.home / "cache").write_text("a file in its place")
    street_store.load_streets(alone)
    assert len(streets.streets().crossings) > 500
