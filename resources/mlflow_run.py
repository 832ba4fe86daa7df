"""The MLflow run of a Dagster run that trains models, opened by dagster-mlflow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import dagster as dg
from pydantic import PrivateAttr

from city.models.registry import EXPERIMENT, Registry
from city.settings import settings

Resource = TypeVar("Resource", bound="MLflowRunResource")


class MLflowRunResource(dg.ConfigurableResource):
    """An MLflow run that is open while a Dagster run trains models, and has the same tag `dagster_run_id`.

    The MLflow run of each training is nested in it. MLflow and dagster-mlflow are imported when the resource is
    initialised, because every process that loads the definitions would need two seconds and 150 MB more.
    """

    _run_id: str | None = PrivateAttr(None)

    @property
    def run_id(self) -> str:
        """The id of the MLflow run."""
        assert self._run_id is not None, "the resource is initialised by a run"
        return self._run_id

    @contextmanager
    def yield_for_execution(self: Resource, context: dg.InitResourceContext) -> Iterator[Resource]:
        """Opens the MLflow run, and ends it as failed where a step of the Dagster run has failed.

        Raises RegistryAway where MLflow cannot be reached.
        """
        registry = Registry(settings())
        registry.create_experiment()
        from dagster_mlflow import mlflow_tracking

        config = {"experiment_name": EXPERIMENT, "mlflow_tracking_uri": registry.uri}
        with contextmanager(mlflow_tracking.resource_fn)(context.replace_config(config)) as mlflow:
            self._run_id = mlflow.active_run().info.run_id
            try:
                yield self
            finally:
                # dagster-mlflow ends the run in a hook of the job, which has to be imported with the definitions.
                status = "FAILED"  # also where Dagster's storage does not answer
                try:
                    assert context.instance is not None
                    assert context.run is not None
                    if not context.instance.get_run_stats(context.run.run_id).steps_failed:
                        status = "FINISHED"
                finally:
                    mlflow.end_run(status)
