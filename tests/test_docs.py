"""README and docs/ name files and commands that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_group

from city.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ENDINGS = ("py", "ts", "tsx", "toml", "yaml", "lock")
PACKAGES = ("city", "city_assets", "resources", "sensors_and_schedules", "simulators", "benchmarks", "tests", "deploy")
ELSEWHERE = {"simulators/bikes.py", "resources.py", "hooks.py"}
"""Files of an example and of a library."""


def quoted(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", page.read_text())


@pytest.fixture(scope="module")
def files() -> list[str]:
    folders = (
        "city",
        "city_assets",
        "resources",
        "sensors_and_schedules",
        "simulators",
        "benchmarks",
        "tests",
        "deploy",
    )
    paths = [path for folder in (*folders, "dashboard/src") for path in (ROOT / folder).rglob("*")]
    return [f"/{path.relative_to(ROOT).as_posix()}" for path in [*paths, *ROOT.glob("*.*")]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_files_that_exist(page: Path, files: list[str]) -> None:
    names = {name for name in quoted(page) if re.fullmatch(rf"[\w./]+\.({'|'.join(ENDINGS)})", name)}
    unknown = {name for name in names - ELSEWHERE if not any(file.endswith(f"/{name}") for file in files)}
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_links_to_files_that_exist(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if not link.startswith("http")]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_commands_that_are_named_exist() -> None:
    group: Any = get_group(app)
    lines = {text for page in PAGES for text in quoted(page) if text.startswith("city ")}
    assert len(lines) > 30
    for line in lines:
        name, *rest = line.replace("\\", "").split()[1:]
        command = group.get_command(None, name)
        assert command is not None, line
        if rest and hasattr(command, "list_commands"):
            assert set(rest[0].split("|")) <= set(command.list_commands(None)), line
            command = command.get_command(None, rest[0].split("|")[0])
        options = {option for parameter in command.params for option in parameter.opts}
        if "|" not in line:
            assert set(re.findall(r"--[a-z-]+", line)) <= options, line
