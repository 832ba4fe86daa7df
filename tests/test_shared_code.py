"""Shared code names no domain: what belongs to one stands in its folder."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "dashboard/src"
PAGE_WORDS = r"taxi|fraud|machine_id|vehicle|congest|borough|\bYork|Manhattan|km/h|traffic|payment|equipment"
# In Python some of these words are names of settings and topics, and examples in the help.
PYTHON_WORDS = r"taxi|fraud|machine_id|congest|borough|Manhattan|km/h"


def shared_pages() -> Iterator[Path]:
    """Yields the sources of the dashboard that belong to no domain, without those that are generated from the API."""
    for path in sorted(DASHBOARD.rglob("*.ts*")):
        if DASHBOARD / "domains" not in path.parents and path != DASHBOARD / "api/generated.ts":
            yield path


def shared_modules() -> Iterator[Path]:
    for folder in ("city", "resources", "sensors_and_schedules", "city_assets/monitoring"):
        yield from sorted((ROOT / folder).rglob("*.py"))
    yield from sorted((ROOT / "city_assets").glob("*.py"))


def lines_with(words: str, paths: Iterable[Path]) -> dict[str, str]:
    """Returns the lines that have one of the words, by place."""
    return {
        f"{path.relative_to(ROOT)}:{number}": line.strip()
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(words, line, re.IGNORECASE)
    }


def test_shared_code_of_the_dashboard_names_no_domain() -> None:
    paths = list(shared_pages())
    assert len(paths) > 30
    assert not lines_with(PAGE_WORDS, paths), "move these into dashboard/src/domains/"


def test_shared_code_in_python_names_no_domain() -> None:
    paths = [path for path in shared_modules() if path != ROOT / "city" / "sources" / "units.py"]  # all units are there
    assert len(paths) > 200
    assert not lines_with(PYTHON_WORDS, paths), "move these into the folder of the domain in city_assets/"


def test_domains_are_found_by_the_words() -> None:
    assert lines_with(PAGE_WORDS, (DASHBOARD / "domains").rglob("*.ts*"))
    assert lines_with(PYTHON_WORDS, (ROOT / "city_assets/payments").rglob("*.py"))


def test_shared_pages_read_domains_from_their_registry_only() -> None:
    modules = {module for path in shared_pages() for module in re.findall(r"'[./]+/(domains[\w/]*)'", path.read_text())}
    assert modules == {"domains", "domains/domain"}
