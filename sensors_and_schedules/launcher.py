"""A run launcher that tells Dagster's run monitoring which runs are alive.

Dagster's default launcher cannot tell. With it, a run that was active when Dagster was killed stays "started" for
ever, and keeps one of the few places of the queue.
"""

from dagster import DagsterRun, DefaultRunLauncher

from city.dagster_internals import CheckRunHealthResult, WorkerStatus

_GONE = "the process that ran it is gone"


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches each run as a child of a code server, as Dagster does by default, and checks that it is alive.

    The tags of a run hold the address of its server.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: run monitoring may call `check_run_worker_health`."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Asks the run's code server whether the run is alive.

        Returns NOT_FOUND if the server cannot be reached, or if it was replaced by a server without the run. Returns
        RUNNING if the server is only slow to answer: it lives, and reports the end of its children by itself.
        """
        import grpc  # imported here, because every process of Dagster imports this module

        from city.dagster_internals import (
            CanCancelExecutionRequest,
            CanCancelExecutionResult,
            DagsterUserCodeUnreachableError,
            deserialize_value,
        )

        server = self._get_grpc_client_for_termination(run.run_id)
        if server is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process is unknown")
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
