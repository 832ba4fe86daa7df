"""Groups whose subcommands the domains declare."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from city.cli.main import app
from city.contracts.model import ContractError
from city.contracts.registry import domains
from city.settings import Settings
from tests.commands import city
from tests.domains import extra_domain

COMMANDS = """
def count(counter: str, weeks: int = 1) -> None:
    "Fetch a counter's weeks."
    print(f"{weeks} weeks of {counter}")


COMMANDS = {"data": {"counts": count}}
"""


@pytest.fixture
def bikes(config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    files = {"contract.py": "CONTRACTS = ()", "commands.py": COMMANDS}
    with extra_domain(tmp_path / "more", "bikes", files, monkeypatch):
        yield


def test_a_new_domain_adds_a_subcommand(bikes: None) -> None:
    assert {"tlc", "counts"} <= set(city("data", "--help").split())
    assert "Fetch a counter's weeks" in city("data", "counts", "--help")
    assert city("data", "counts", "bridge", "--weeks", "3") == "3 weeks of bridge\n"


def test_a_subcommand_is_in_its_own_group_only(bikes: None) -> None:
    result = CliRunner().invoke(app, ["ingest", "counts"])
    assert result.exit_code == 2
    assert "No such command 'counts'" in result.output


@pytest.mark.parametrize("name", ["data", "ingest", "replay", "history"])
def test_taxi_trips_are_in_the_groups(name: str, config: Settings) -> None:
    assert "tlc" in city(name, "--help").split()


def test_a_group_keeps_its_own_subcommands(config: Settings) -> None:
    assert {"run", "status", "tlc"} <= set(city("history", "--help").split())
    assert city("history", "status").startswith("there is no history")


def test_a_subcommand_of_the_platform_is_not_replaced(
    config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"contract.py": "CONTRACTS = ()", "commands.py": 'COMMANDS = {"history": {"run": lambda: None}}'}
    with extra_domain(tmp_path / "more", "bikes", files, monkeypatch):
        result = CliRunner().invoke(app, ["history", "--help"])
    assert "bikes declares the command city history run, which the platform has" in str(result.exception)


def test_the_help_of_all_commands_imports_no_domain() -> None:
    script = """
import sys
from typer.testing import CliRunner
from city.cli.main import app
result = CliRunner().invoke(app, ["--help"])
assert result.exit_code == 0 and "replay" in result.output
print([name for name in sys.modules if name.split(".")[0] == "city_assets"])
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_two_domains_with_one_subcommand_are_refused(bikes: None, tmp_path: Path) -> None:
    other = tmp_path / "more" / "scooters"
    shutil.copytree(tmp_path / "more" / "bikes", other)
    try:
        result = CliRunner().invoke(app, ["data", "counts", "bridge"])
    finally:
        for name in [name for name in sys.modules if name.startswith("city_assets.scooters")]:
            del sys.modules[name]
    assert "the domains bikes and scooters declare the command city data counts" in str(result.exception)


def test_a_declaration_of_an_earlier_release_is_named(bikes: None, tmp_path: Path) -> None:
    (tmp_path / "more" / "bikes" / "contract.py").write_text(
        "from city.contracts import Field\nField(name='n', kind='integer', means='how many')\n"
    )
    with pytest.raises(ContractError, match=r"city_assets.bikes.contract .*'means'.* `description=`"):
        domains()
