import subprocess
import sys
from pathlib import Path

import polars as pl

_READS = """
import sys
import polars as pl
from deltalake import DeltaTable
from city.lake.native_imports import refuse_pyarrow

if sys.argv[2] == "refuse":
    refuse_pyarrow()
    refuse_pyarrow()
print(pl.scan_delta(DeltaTable(sys.argv[1])).filter(pl.col("a") > 1).collect()["a"].to_list())
print("pyarrow" in sys.modules)
print(pl.DataFrame({"a": [1, 2]}).to_arrow().num_rows)
"""


def read(table: Path, argument: str) -> list[str]:
    command = [sys.executable, "-c", _READS, str(table), argument]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")


def test_a_scan_of_a_delta_table_loads_no_pyarrow_and_python_code_still_can(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1, 2, 3]}).write_delta(tmp_path)
    assert read(tmp_path, "refuse")[:3] == ["[2, 3]", "False", "2"]
    # Polars alone does load it. When this no longer holds, the module is to be deleted.
    assert read(tmp_path, "leave")[:3] == ["[2, 3]", "True", "2"]
