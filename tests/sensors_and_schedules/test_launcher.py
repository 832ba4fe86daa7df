"""The launcher with Dagster's own monitoring, a real code server and a real run."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.launcher.base import WorkerStatus
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context, instance_for_test
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from sensors_and_schedules.keep_streaming import _is_alive
from tests.live import until

_SLEEPS = """
import time
import dagster as dg

@dg.op
def sleep(): time.sleep(300)

@dg.job(executor_def=dg.in_process_executor)
def sleeps(): sleep()
"""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    overrides = {
        "run_launcher": {"module": "sensors_and_schedules.launcher", "class": "WatchedRunLauncher"},
        "run_monitoring": {"enabled": True},
        "code_servers": {"wait_for_local_processes_on_shutdown": False},
    }
    with instance_for_test(overrides) as ephemeral:
        yield ephemeral


def test_a_run_whose_server_was_killed_gives_its_place_back(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(_SLEEPS)
    before = set(psutil.Process().children(recursive=True))
    target = PythonFileTarget(str(tmp_path / "jobs.py"), None, str(tmp_path), "jobs")
    with create_test_daemon_workspace_context(target, instance) as workspace:
        run = launch(instance, workspace.create_request_context())

        def status() -> dg.DagsterRunStatus:
            list(execute_run_monitoring_iteration(workspace, logging.getLogger()))
            launched = instance.get_run_by_id(run)
            assert launched
            return launched.status

        until(lambda: status() == dg.DagsterRunStatus.STARTED)
        assert health(instance, run) == WorkerStatus.RUNNING
        launched = instance.get_run_by_id(run)
        assert launched
        assert _is_alive(instance, launched)
        ours = set(psutil.Process().children(recursive=True)) - before
        assert ours
        for process in ours:
            process.kill()
        psutil.wait_procs(ours)
        assert health(instance, run) == WorkerStatus.NOT_FOUND
        assert not _is_alive(instance, launched)
        assert status() == dg.DagsterRunStatus.FAILURE


def launch(instance: dg.DagsterInstance, workspace: Any) -> str:
    (repository,) = workspace.get_code_location("jobs").get_repositories().values()
    job = repository.get_full_job("sleeps")
    run = create_run_for_test(
        instance,
        job_name="sleeps",
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
    )
    instance.launch_run(run.run_id, workspace)
    return run.run_id


def health(instance: dg.DagsterInstance, run: str) -> WorkerStatus:
    launched = instance.get_run_by_id(run)
    assert launched
    return instance.run_launcher.check_run_worker_health(launched).status
