"""Launches runs as Dagster does by itself, and tells Dagster's run monitoring which of them are alive.

The launcher that comes with Dagster cannot say: a run that was going on when Dagster was killed stays "started" for
ever, and holds one of the few places of the queue.
"""

from dagster import DagsterRun, DefaultRunLauncher

from city.dagster_internals import CheckRunHealthResult, WorkerStatus

_GONE = "the process that ran it is gone"


class WatchedRunLauncher(DefaultRunLauncher):
    """A run is a child of the code server that started it, whose address is among the run's tags."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """NOT_FOUND where the run's server cannot be reached, or is another one, which does not know the run. A
        server that is only slow to answer lives, and reports the end of its children by itself."""
        import grpc  # here, for every process of Dagster imports this module

        from city.dagster_internals import (
            CanCancelExecutionRequest,
            CanCancelExecutionResult,
            DagsterUserCodeUnreachableError,
            deserialize_value,
        )

        server = self._get_grpc_client_for_termination(run.run_id)
        if server is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "nothing tells which process runs it")
        try:
            answer = server.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=10)
        except DagsterUserCodeUnreachableError as error:
            cause = error.__cause__
            if isinstance(cause, grpc.RpcError) and cause.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return CheckRunHealthResult(WorkerStatus.RUNNING, "its server is busy")
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, _GONE)
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, _GONE)
