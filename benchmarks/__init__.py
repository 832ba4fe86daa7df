"""Benchmarks: each a module with `run(tell) -> dict`, against a peer in the same run or against published figures."""

import importlib
import pkgutil
from types import ModuleType


def known() -> list[str]:
    """Their names, as the command line spells them."""
    return sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(__path__) if info.name[0] != "_")


def load(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
