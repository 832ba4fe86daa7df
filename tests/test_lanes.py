"""The lanes of the suite (tests/lanes.py): every test is run by one of them, and by one alone."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from tests.lanes import OPTIONS, ORDERS

_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTEST_ADDOPTS": ""}
_TESTS = """
import pytest
def test_fast(): ...
@pytest.mark.integration
class TestServers:
    def test_one(self): ...
    def test_two(self): ...
@pytest.mark.integration
@pytest.mark.own_servers
def test_own(): ...
"""


def run(folder: Path, lane: str) -> list[str]:
    """The names of the tests that the lane runs, in its order."""
    markers = ["-o", "markers=integration: servers\nown_servers: of its own"]
    command = [sys.executable, "-m", "pytest", "-v", "--color=no", f"--rootdir={folder}", *markers]
    command += [*OPTIONS, f"--lane={lane}", f"--taken={folder / 'taken'}", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | _ENVIRONMENT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [line for line in ended.stdout.splitlines() if " PASSED" in line]
    return [line.partition(" PASSED")[0].rpartition("/")[2] for line in lines]


def test_each_test_is_run_once_by_the_first_lane_that_is_free(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for name in "ab":
        (tmp_path / f"test_{name}.py").write_text(_TESTS)
    of_lanes = {lane: run(tmp_path, lane) for lane in ("fast", "more-servers", "servers")}
    assert of_lanes.keys() == ORDERS.keys()
    servers = [f"test_{name}.py::TestServers::test_{number}" for name in "ba" for number in ("one", "two")]
    assert of_lanes == {
        "fast": ["test_a.py::test_fast", "test_b.py::test_fast"],
        "more-servers": ["test_a.py::test_own", "test_b.py::test_own", *servers],
        "servers": [],
    }


def test_what_tests_of_a_package_share_ends_where_another_lane_has_the_rest_of_it(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for package, names in (("one", "ab"), ("two", "cd")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        for name in names:
            (tmp_path / package / f"test_{name}.py").write_text("def test_it(): ...")
    (tmp_path / "taken" / quote("fast:one/test_b.py", safe="")).touch()
    assert run(tmp_path, "fast") == [f"test_{name}.py::test_it" for name in "acd"]


def test_a_snapshot_that_another_lane_compares_is_none_that_nobody_uses(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "test_a.py").write_text("def test_it(snapshot): assert snapshot == 1")
    (tmp_path / "__snapshots__").mkdir()
    snapshot = "# serializer version: 1\n# name: test_it\n  1\n# ---\n"
    (tmp_path / "__snapshots__/test_a.ambr").write_text(snapshot)
    assert run(tmp_path, "fast") == ["test_a.py::test_it"]
    assert run(tmp_path, "servers") == []
