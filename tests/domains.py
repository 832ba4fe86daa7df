"""Domains outside the checkout, for tests."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import city_assets
from city.settings import settings


@contextmanager
def extra_domain(parent: Path, name: str, files: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Writes a domain's files into a folder of `parent`, which is CITY_EXTRA_DOMAINS until the end."""
    folder = parent / name
    folder.mkdir(parents=True)
    for file, text in {"__init__.py": "", **files}.items():
        (folder / file).write_text(text)
    monkeypatch.setenv("CITY_EXTRA_DOMAINS", json.dumps([str(parent)]))
    settings.cache_clear()
    before = list(city_assets.__path__)
    yield
    city_assets.__path__[:] = before
    for module in [module for module in sys.modules if module.startswith(f"city_assets.{name}")]:
        del sys.modules[module]
