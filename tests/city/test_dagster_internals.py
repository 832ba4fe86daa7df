"""What is used of Dagster's private modules is as it was when it was tried."""

import importlib.metadata
import inspect
import re
import tomllib
from enum import Enum
from pathlib import Path

import pytest
from dagster_shared.record import _RECORD_ANNOTATIONS_FIELD, get_record_annotations
from packaging.specifiers import SpecifierSet
from syrupy.assertion import SnapshotAssertion

from city import dagster_internals

ROOT = Path(__file__).parents[2]
CODE = ("city", "city_assets", "resources", "sensors_and_schedules", "simulators")


def described(name: str) -> str:
    """A name's arguments, fields, members or value; of an error, what it is. Not their types, which Python spells
    differently from version to version."""
    value = getattr(dagster_internals, name)
    if isinstance(value, type) and issubclass(value, Enum):
        return ", ".join(member.name for member in value)
    if isinstance(value, type) and issubclass(value, Exception):
        return ", ".join(base.__name__ for base in value.__mro__)
    if not callable(value) or inspect.getmodule(value) is None:
        return str(value)
    if isinstance(value, type) and hasattr(value, _RECORD_ANNOTATIONS_FIELD):
        return ", ".join(get_record_annotations(value))  # Python knows its arguments from its first instance on
    return ", ".join(inspect.signature(value).parameters)


def test_each_name_is_what_was_tried(snapshot: SnapshotAssertion) -> None:
    assert {name: described(name) for name in sorted(dagster_internals.MODULE_OF)} == snapshot


def test_the_installed_version_is_in_the_range_that_was_tried() -> None:
    assert importlib.metadata.version("dagster") in SpecifierSet(dagster_internals.TESTED)
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"dagster{dagster_internals.TESTED}" in needs


def test_no_other_file_imports_private_modules() -> None:
    private = re.compile(r"^\s*(?:from|import) dagster(?:_\w+)?\._", re.M)
    files = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    assert [str(path.relative_to(ROOT)) for path in files if private.search(path.read_text())] == [
        "city/dagster_internals.py"
    ]


def test_a_name_that_is_not_listed_is_an_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = dagster_internals.nothing
