"""No file has more than 300 lines and no function more than 60. The exceptions are listed, and may only shrink."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("city", "city_assets", "resources", "sensors_and_schedules", "simulators")
FILE_LINES, FUNCTION_LINES = 300, 60
GENERATED = ROOT / "dashboard/src/api/generated.ts"
EXCEPTIONS: dict[str, int] = {}
"""The most lines of each file and function that is still too long. Add none."""


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")
    for ending in ("ts", "tsx"):
        yield from (
            path
            for path in (ROOT / "dashboard/src").rglob(f"*.{ending}")
            if ".test." not in path.name and path != GENERATED
        )


def too_long(name: str, text: str) -> dict[str, int]:
    """Returns the lines of the file where it is too long, and of each Python function in it that is."""
    lines = {name: len(text.splitlines())} if len(text.splitlines()) > FILE_LINES else {}
    for node in ast.walk(ast.parse(text)) if name.endswith(".py") else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or 0) - node.lineno + 1
            if count > FUNCTION_LINES:
                lines[f"{name}: {node.name}"] = count
    return lines


@pytest.fixture(scope="module")
def long() -> dict[str, int]:
    paths = list(sources())
    assert len(paths) > 200
    return {
        name: lines
        for path in paths
        for name, lines in too_long(path.relative_to(ROOT).as_posix(), path.read_text()).items()
    }


def test_no_file_and_no_function_is_too_long(long: dict[str, int]) -> None:
    grown = {name: lines for name, lines in long.items() if lines > EXCEPTIONS.get(name, 0)}
    assert not grown, f"more than {FILE_LINES} lines (files) or {FUNCTION_LINES} (functions): split them by subject"


def test_an_exception_that_is_short_by_now_is_not_listed(long: dict[str, int]) -> None:
    assert not EXCEPTIONS.keys() - long.keys(), "remove these from EXCEPTIONS"


def test_lines_of_files_and_of_functions_are_counted() -> None:
    function = "async def f():\n" + "    x = 1\n" * 60
    assert too_long("a.py", function) == {"a.py: f": 61}
    assert too_long("a.py", function + "y = 2\n" * 240) == {"a.py": 301, "a.py: f": 61}
    assert too_long("a.ts", "let x\n" * 300) == {}
