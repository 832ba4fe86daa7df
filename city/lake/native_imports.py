"""Keeps PyArrow out of processes that only read Delta tables with Polars."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_REFUSED = "pyarrow"


class _NativeCaller(MetaPathFinder):
    """Refuses an import of PyArrow that no Python code has called."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == _REFUSED and _is_called_by_native_code():
            raise ModuleNotFoundError(f"{name} is not loaded for native code", name=name)
        return None


def refuse_pyarrow() -> None:
    """Refuses PyArrow to Polars' Rust code, in this process from now on. Python code imports it as ever.

    When Polars resolves a scan of a Delta table, it imports PyArrow to learn whether the table's schema is one of
    PyArrow's. That takes 45 MB, and without PyArrow the answer is no.
    """
    if not any(isinstance(finder, _NativeCaller) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NativeCaller())


def _is_called_by_native_code() -> bool:
    """Returns whether the thread's stack has no frames but those of the import itself."""
    frame = sys._getframe(1)
    while (caller := frame.f_back) is not None:
        if not caller.f_code.co_filename.startswith("<frozen importlib"):
            return False
        frame = caller
    return True
