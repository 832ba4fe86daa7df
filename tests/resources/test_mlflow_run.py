"""The MLflow run of a Dagster run: one for all its trainings, and ended as the Dagster run ends."""

import subprocess
import sys

import dagster as dg
import mlflow
import pytest

from city.models.registry import EXPERIMENT, Registry, RegistryAway
from city.settings import Settings, settings
from resources.mlflow_run import MLflowRunResource


def materialize(*assets: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    return dg.materialize(assets, resources={"mlflow": MLflowRunResource()}, raise_on_error=False)


@pytest.mark.parametrize(("succeeds", "status"), [(True, "FINISHED"), (False, "FAILED")])
def test_trainings_are_nested_in_the_run_of_their_dagster_run(config: Settings, succeeds: bool, status: str) -> None:
    parents: list[str] = []

    def train(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def asset(mlflow: MLflowRunResource) -> None:
            parents.append(mlflow.run_id)
            log_training(name)
            assert succeeds or name == "first"

        return asset

    def log_training(name: str) -> None:
        with mlflow.start_run(run_name=name, nested=True):
            mlflow.log_metric("mae", 1.0)

    result = materialize(train("first"), train("second"))
    assert result.success == succeeds
    assert len(set(parents)) == 1
    client = mlflow.MlflowClient(Registry(config).uri)
    parent = client.get_run(parents[0])
    assert (parent.info.status, parent.data.tags["dagster_run_id"]) == (status, result.run_id)
    experiment = client.get_experiment(parent.info.experiment_id)
    assert experiment.name == EXPERIMENT
    assert experiment.artifact_location == (config.home / "mlflow" / "artifacts").as_uri()
    runs = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parents[0]}'")
    assert sorted(run.info.run_name for run in runs) == ["first", "second"]
    assert mlflow.active_run() is None


def test_mlflow_that_is_away_is_named(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITY_MLFLOW_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings.cache_clear()
    opened = MLflowRunResource().yield_for_execution(dg.build_init_resource_context())
    with pytest.raises(RegistryAway, match=r"registry at http://127.0.0.1:9 is unavailable"), opened:
        pass


def test_the_resource_is_declared_without_mlflow() -> None:
    code = "import sys; from resources.mlflow_run import MLflowRunResource; MLflowRunResource(); "
    code += "print({'mlflow', 'dagster_mlflow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
