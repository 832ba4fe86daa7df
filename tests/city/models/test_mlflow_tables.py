import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from city.models.mlflow_tables import MLflowTables

_READS = """
import sys
from pathlib import Path
from city.models.registry import Registry
from city.settings import Settings

registry = Registry(Settings(_env_file=None, home=Path(sys.argv[1])))
print(registry.aliases(), registry.at("speed"), registry.versions("speed"), "mlflow" in sys.modules)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A registry whose tables MLflow has begun to create."""
    path = tmp_path / "mlflow" / "mlflow.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    return path


def test_a_registry_that_is_being_created_is_empty_and_loads_no_mlflow(file: Path) -> None:
    command = [sys.executable, "-c", _READS, str(file.parent.parent)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == "{} None [] False\n"


def test_tables_that_are_not_as_expected_are_an_error_later(file: Path) -> None:
    tables = MLflowTables(file)
    assert tables.versions("speed") == []
    os.utime(file, (time.time() - 3600, time.time() - 3600))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        tables.versions("speed")
