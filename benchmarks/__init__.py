"""Benchmarks: each a module with `run(tell) -> dict`, measured against a peer in the same run."""

import importlib
import pkgutil
from types import ModuleType


def known() -> list[str]:
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))


def load(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name}")
