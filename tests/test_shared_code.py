"""Shared code names no domain: what belongs to one stands in its folder."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "dashboard/src"
GENERATED = DASHBOARD / "api/generated.ts"
DOMAIN_WORDS = re.compile(
    r"taxi|fraud|machine_id|vehicle|congest|borough|\bYork|Manhattan|km/h|traffic|payment|equipment", re.I
)


def shared_pages() -> Iterator[Path]:
    for path in sorted(DASHBOARD.rglob("*.ts*")):
        if DASHBOARD / "domains" not in path.parents and path != GENERATED:
            yield path


def test_shared_code_of_the_dashboard_names_no_domain() -> None:
    paths = list(shared_pages())
    assert len(paths) > 30
    named = {
        f"{path.relative_to(ROOT)}:{number}": line.strip()
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if DOMAIN_WORDS.search(line)
    }
    assert not named, "move these into dashboard/src/domains/"


def test_shared_code_reads_domains_from_their_registry_only() -> None:
    imports = {
        (path.name, module)
        for path in shared_pages()
        for module in re.findall(r"from '[./]+/(domains[\w/]*)'", path.read_text())
    }
    assert {module for _, module in imports} <= {"domains", "domains/domain"}
