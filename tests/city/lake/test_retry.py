"""Commits are retried after conflicts, and after nothing else."""

from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from tenacity import wait_none

from city.lake import cold
from city.lake.retry import commit_with_retry
from city.lake.tables import open_table


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(commit_with_retry.retry, "wait", wait_none())  # type: ignore[attr-defined]
    open_table(tmp_path / "table", {"a": pl.Int64()})
    return tmp_path / "table"


def test_a_conflict_is_retried_on_the_newest_state(path: Path) -> None:
    versions = []

    def change(table: DeltaTable) -> int:
        versions.append(table.version())
        if len(versions) < 3:
            pl.DataFrame({"a": [1]}).write_delta(str(path), mode="append")
            raise CommitFailedError("another writer was first")
        return table.version()

    assert commit_with_retry(path, change) == versions[-1] == versions[0] + 2


def test_the_last_of_ten_conflicts_is_raised_and_another_error_at_once(path: Path) -> None:
    calls = []

    def refuse(error: Exception) -> None:
        calls.append(error)
        raise error

    with pytest.raises(CommitFailedError, match="a conflict"):
        commit_with_retry(path, lambda table: refuse(CommitFailedError("a conflict")))
    assert len(calls) == 10
    with pytest.raises(OSError, match="the disk is gone"):
        commit_with_retry(path, lambda table: refuse(OSError("the disk is gone")))
    assert len(calls) == 11


def test_a_move_to_cold_storage_is_started_again_twenty_times(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def conflict(*_: object) -> None:
        calls.append(1)
        raise DeltaError("bronze was compacted")

    monkeypatch.setattr(cold._move_until_done.retry, "wait", wait_none())  # type: ignore[attr-defined]
    monkeypatch.setattr(cold, "_move_rows", conflict)
    with pytest.raises(DeltaError, match="compacted"):
        cold._move_until_done(None, path, "", None)  # type: ignore[arg-type]
    assert len(calls) == 20
