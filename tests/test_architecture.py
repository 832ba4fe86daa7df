"""docs/architecture.md says what is there."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}", 1)[1].split("\n## ", 1)[0]


def paths(text: str) -> list[str]:
    return re.findall(r"`([\w/]+(?:/|\.py|\.md|\.toml))`", text)


def test_every_path_it_names_exists() -> None:
    named = [path for path in paths(PAGE) if "/" in path]
    assert len(named) > 40
    assert [path for path in named if not (ROOT / path).exists() and not path.startswith("traffic/")] == ["sinks/"]


def test_both_paths_are_short() -> None:
    """More files than these, and nobody follows an event through them."""
    event = re.findall(r"^\| `(.+\.py)`", section("The path of one event"), re.M)
    prediction = re.findall(r"^\| `(.+\.py)`", section("The path of one prediction"), re.M)
    assert 10 < len(event) <= 15
    assert 5 < len(prediction) <= 10


def test_packages_are_listed_in_the_order_that_is_enforced() -> None:
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    order = [module.strip() for layer in contract["layers"] for module in layer.split("|")]
    level = {module: n for n, layer in enumerate(contract["layers"]) for module in map(str.strip, layer.split("|"))}
    listed = [
        path.removesuffix("/").removesuffix(".py").replace("/", ".")
        for line in section("Packages").splitlines()
        if line.startswith("| `")
        for path in paths(line.split("|")[1])
    ]
    levels = [level[name] for name in listed if name != "city_assets"]
    assert levels == sorted(levels)
    folders = {f"city.{path.parent.name}" for path in (ROOT / "city").glob("*/__init__.py")}
    assert folders <= set(order)
    assert folders <= set(listed)
