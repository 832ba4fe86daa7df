"""The model registry: versions of models in MLflow. One is the champion, and one may be the challenger."""

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from city.models.mlflow_tables import MLflowTables
from city.models.model import Model, ModelError, Parameters
from city.models.version import Version
from city.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from numpy.typing import NDArray

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
EXPERIMENT = "city"
_FILE = "model.onnx"
_CARD = "card.md"
_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default an unreachable server is retried for minutes
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # MLflow would record all reads of the environment while a model is logged, and fail where another thread reads it.
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}


_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model; the model has no such alias


class RegistryAway(ModelError):
    """Reports that the registry cannot be reached. Versions that were loaded from it continue to serve."""


class NoSuchVersion(ModelError):
    """Reports that the model has no version of that number."""


class NoChampionBefore(ModelError):
    """Reports that a rollback has no champion to go back to."""


class Registry:
    """The few operations on MLflow that the platform needs.

    MLflow is SQLite and files under CITY_HOME, or a server (CITY_MLFLOW_URL). Raises ModelError where it cannot be
    reached.
    """

    def __init__(self, config: Settings) -> None:
        for name, value in _MLFLOW.items():
            os.environ.setdefault(name, value)
        os.environ.update(config.mlflow_environment)
        folder = config.home / "mlflow"
        self._uri = config.mlflow_url or f"sqlite:///{folder / 'mlflow.db'}"
        self._artifacts = None if config.mlflow_url else (folder / "artifacts").as_uri()
        # Reads bypass MLflow where possible: see mlflow_tables.
        self._tables = None if config.mlflow_url else MLflowTables(folder / "mlflow.db")
        if not config.mlflow_url:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def uri(self) -> str:
        """MLflow's tracking URI."""
        return self._uri

    def add(
        self,
        model: Model,
        content: bytes,
        *,
        parameters: Parameters,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        card: str,
        example: "NDArray[np.float32]",
        figures: Mapping[str, "Figure"],
    ) -> Version:
        """Logs a training run, and registers a version of its model. The version has no alias yet.

        The run has the ONNX model (signature and input example), the card and the figures.
        """
        import mlflow
        import onnx

        self.create_experiment()
        with self._client() as client:
            mlflow.set_experiment(EXPERIMENT)
            with mlflow.start_run(run_name=model.name, tags=dict(tags), nested=mlflow.active_run() is not None) as run:
                mlflow.log_params(dict(parameters))
                mlflow.log_metrics(dict(metrics))
                for name, figure in figures.items():
                    mlflow.log_figure(figure, name)
                mlflow.log_text(card, _CARD)
                logged = mlflow.onnx.log_model(
                    onnx.load_from_string(content),
                    name=model.name,
                    signature=mlflow.models.infer_signature(example),
                    input_example=example,
                    pip_requirements=[
                        "onnx",
                        "onnxruntime",
                    ],  # otherwise MLflow installs packages and tries them, for seconds
                    onnx_execution_providers=["CPUExecutionProvider"],
                )
            with contextlib.suppress(mlflow.exceptions.MlflowException):
                client.create_registered_model(model.name, description=model.description)
            registered = client.create_model_version(
                model.name,
                source=logged.model_uri,
                run_id=run.info.run_id,
                tags={**tags, "metrics": json.dumps(dict(metrics))},
                description=card[:4000],
                model_id=logged.model_id,
            )
        return self.version(model.name, int(registered.version))

    def create_experiment(self) -> None:
        """Creates the experiment that has the runs of all trainings, unless it exists."""
        with self._client() as client:
            if client.get_experiment_by_name(EXPERIMENT) is None:
                client.create_experiment(EXPERIMENT, artifact_location=self._artifacts)

    def versions(self, model: str) -> list[Version]:
        """Lists all versions of a model, the newest first."""
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):
                return self._tables.versions(model)
        with self._client() as client:
            aliases: dict[int, list[str]] = {}
            registered = next(iter(client.search_registered_models(f"name = '{model}'")), None)
            for alias, number in (registered.aliases if registered else {}).items():
                aliases.setdefault(int(number), []).append(alias)
            records = client.search_model_versions(f"name = '{model}'") if registered else []
            return sorted((_to_version(v, aliases.get(int(v.version), [])) for v in records), key=lambda v: -v.number)

    def version(self, model: str, number: int) -> Version:
        """Returns the version of that number. Raises NoSuchVersion where there is none."""
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):
                if rows := self._tables.versions(model, number):
                    return rows[0]
                raise _no_such_version(model, number)
        from mlflow.exceptions import MlflowException

        with self._client() as client:
            try:
                record = client.get_model_version(model, str(number))
            except MlflowException as error:
                if error.error_code in _NOT_THERE:
                    raise _no_such_version(model, number) from None
                raise
        return _to_version(record, record.aliases)

    def stamp(self) -> int | None:
        """Returns a number that changes whenever the registry changes. Returns None where only a server knows that."""
        if not self._uri.startswith("sqlite:///"):
            return None
        file = self._uri.removeprefix("sqlite:///")
        return sum(path.stat().st_mtime_ns for name in (file, f"{file}-wal") if (path := Path(name)).exists())

    def aliases(self) -> dict[str, dict[str, int]]:
        """Returns the version of each alias, for every model. It takes one query, for callers that poll."""
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):
                return self._tables.aliases()
        with self._client() as client:
            registered = client.search_registered_models(max_results=1000)
            return {model.name: {alias: int(n) for alias, n in model.aliases.items()} for model in registered}

    def at(self, model: str, alias: str = CHAMPION) -> Version | None:
        """Returns the version that has the alias. Returns None where there is none."""
        if self._tables is not None:
            number = self.aliases().get(model, {}).get(alias)
            try:
                return None if number is None else self.version(model, number)
            except NoSuchVersion:  # deleted, with its aliases, between the two reads
                return None
        from mlflow.exceptions import MlflowException

        with self._client() as client:
            try:
                record = client.get_model_version_by_alias(model, alias)
            except MlflowException as error:
                if error.error_code in _NOT_THERE:
                    return None
                raise
        return _to_version(record, record.aliases)

    def content(self, version: Version) -> bytes:
        """Reads the version's ONNX model."""
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):
                if file := self._tables.model_file(version.model, version.number, _FILE):
                    return file.read_bytes()
        return self._download_artifact(f"models:/{version.model}/{version.number}/{_FILE}")

    def card(self, version: Version) -> str:
        """Reads the version's model card, as Markdown."""
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):
                if file := self._tables.run_file(version.run, _CARD):
                    return file.read_text()
        return self._download_artifact(f"runs:/{version.run}/{_CARD}").decode()

    def challenge(self, version: Version) -> Version:
        """Makes a version the challenger, and returns it with that alias."""
        with self._client() as client:
            client.set_registered_model_alias(version.model, CHALLENGER, str(version.number))
        return self.version(version.model, version.number)

    def promote(self, version: Version, why: str) -> None:
        """Makes a version the champion, and records why. A rollback restores the champion before it."""
        previous = self.at(version.model)
        with self._client() as client:
            name, number = version.model, str(version.number)
            client.set_model_version_tag(name, number, "promoted", why)
            if previous and previous.number != version.number:
                client.set_registered_model_alias(name, PREVIOUS, str(previous.number))
            # The alias that other processes read is moved last, in one step.
            client.set_registered_model_alias(name, CHAMPION, number)
            if CHALLENGER in version.aliases:
                client.delete_registered_model_alias(name, CHALLENGER)

    def rollback(self, model: str) -> Version:
        """Makes the previous champion the champion again. Raises NoChampionBefore where there is none."""
        previous, current = self._previous_and_current(model)
        with self._client() as client:
            client.set_registered_model_alias(model, CHAMPION, str(previous.number))
            client.set_registered_model_alias(model, PREVIOUS, str(current.number))
        return previous

    def champion_before(self, model: str) -> Version:
        """Returns the version that a rollback would make the champion. Raises NoChampionBefore where there is none."""
        return self._previous_and_current(model)[0]

    def _previous_and_current(self, model: str) -> tuple[Version, Version]:
        previous, current = self.at(model, PREVIOUS), self.at(model)
        if previous is None or current is None:
            raise NoChampionBefore(f"model {model!r} has no champion before this one to go back to")
        return previous, current

    def _download_artifact(self, uri: str) -> bytes:
        from mlflow.artifacts import download_artifacts

        with self._client(), tempfile.TemporaryDirectory() as folder:
            return Path(download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self._uri)).read_bytes()

    @contextlib.contextmanager
    def _client(self) -> Iterator["MlflowClient"]:
        """Opens MLflow's client. Raises RegistryAway where the registry cannot be reached."""
        import mlflow
        import requests
        import sqlalchemy
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            mlflow.set_tracking_uri(self._uri)
            yield MlflowClient(self._uri, registry_uri=self._uri)
        except (requests.RequestException, sqlalchemy.exc.OperationalError) as error:
            raise self._away_error(error) from error
        except MlflowException as error:
            if "API request to" not in str(error):
                raise
            raise self._away_error(error) from error

    def _away_error(self, error: Exception) -> RegistryAway:
        return RegistryAway(
            f"the model registry at {self._uri} is unavailable ({str(error).splitlines()[0]}); the champion stays as "
            "it is. Start it, or set CITY_MLFLOW_URL"
        )


def _no_such_version(model: str, number: int) -> NoSuchVersion:
    return NoSuchVersion(f"model {model!r} has no version {number}")


def _to_version(record: "ModelVersion", aliases: Sequence[str]) -> Version:
    """Converts MLflow's record of a version."""
    return Version(
        record.name,
        int(record.version),
        str(record.run_id),
        tuple(sorted(aliases)),
        record.tags,
        record.creation_timestamp,
    )
