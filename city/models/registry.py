"""The registry: versions of models in MLflow, of which one is the champion and one may be the challenger."""

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from city.models.mlflow_tables import MLflowTables
from city.models.model import Model, ModelError
from city.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
EXPERIMENT = "city"
_FILE = "model.onnx"
_CARD = "card.md"
_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default a server that is away is asked for minutes
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # It would watch who reads the environment while a model is logged, and fail where another thread does.
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}


_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model; no such alias of it


class RegistryAway(ModelError):
    """The registry cannot be reached; what was loaded from it serves on."""


class NoSuchVersion(ModelError):
    """The model has no version of that number."""


class NoChampionBefore(ModelError):
    """There is nothing to go back to."""


@dataclass(frozen=True)
class Version:
    """A registered version of a model."""

    model: str
    number: int
    run: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    created_ms: int

    @property
    def metrics(self) -> dict[str, float]:
        found: dict[str, float] = json.loads(self.tags.get("metrics", "{}"))
        return found


class Registry:
    """MLflow behind the few things that the platform does with it: SQLite and files under CITY_HOME, or a server
    (CITY_MLFLOW_URL). Raises ModelError where it is away."""

    def __init__(self, config: Settings) -> None:
        for name, value in _MLFLOW.items():
            os.environ.setdefault(name, value)
        folder = config.home / "mlflow"
        self._uri = config.mlflow_url or f"sqlite:///{folder / 'mlflow.db'}"
        self._artifacts = None if config.mlflow_url else (folder / "artifacts").as_uri()
        # Reading goes around MLflow where it can: see there.
        self._tables = None if config.mlflow_url else MLflowTables(folder / "mlflow.db")
        if not config.mlflow_url:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def uri(self) -> str:
        return self._uri

    def add(
        self,
        model: Model,
        content: bytes,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        card: str,
        example: Any,
        figures: Mapping[str, Any],
    ) -> Version:
        """Logs a training run, with its ONNX model (signature and input example), card and figures, and registers a
        version of it. It has no alias yet."""
        import mlflow
        import onnx

        with self._client() as client:
            if client.get_experiment_by_name(EXPERIMENT) is None:
                client.create_experiment(EXPERIMENT, artifact_location=self._artifacts)
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
                    pip_requirements=["onnx", "onnxruntime"],  # else it installs and tries, for seconds
                    onnx_execution_providers=["CPUExecutionProvider"],
                )
            with contextlib.suppress(mlflow.exceptions.MlflowException):
                client.create_registered_model(model.name, description=model.means)
            made = client.create_model_version(
                model.name,
                source=logged.model_uri,
                run_id=run.info.run_id,
                tags={**tags, "metrics": json.dumps(dict(metrics))},
                description=card[:4000],
                model_id=logged.model_id,
            )
        return self.version(model.name, int(made.version))

    def versions(self, model: str) -> list[Version]:
        """All versions, the newest first."""
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):
                named = self._tables.aliases().get(model, {})
                return [
                    Version(
                        row.model,
                        row.number,
                        row.run,
                        tuple(sorted(alias for alias, number in named.items() if number == row.number)),
                        row.tags,
                        row.created_ms,
                    )
                    for row in self._tables.versions(model)
                ]
        with self._client() as client:
            aliases: dict[int, list[str]] = {}
            registered = next(iter(client.search_registered_models(f"name = '{model}'")), None)
            for alias, number in (registered.aliases if registered else {}).items():
                aliases.setdefault(int(number), []).append(alias)
            found = client.search_model_versions(f"name = '{model}'") if registered else []
            return sorted((_version(v, aliases.get(int(v.version), [])) for v in found), key=lambda v: -v.number)

    def version(self, model: str, number: int) -> Version:
        """Raises NoSuchVersion."""
        for version in self.versions(model):
            if version.number == number:
                return version
        raise NoSuchVersion(f"model {model!r} has no version {number}")

    def stamp(self) -> int | None:
        """Changes whenever something in the registry did; None where that cannot be told without asking a server."""
        if not self._uri.startswith("sqlite:///"):
            return None
        file = self._uri.removeprefix("sqlite:///")
        return sum(path.stat().st_mtime_ns for name in (file, f"{file}-wal") if (path := Path(name)).exists())

    def aliases(self) -> dict[str, dict[str, int]]:
        """Of every model, the version that each alias names: one question, for who asks often."""
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):
                return self._tables.aliases()
        with self._client() as client:
            found = client.search_registered_models(max_results=1000)
            return {model.name: {alias: int(n) for alias, n in model.aliases.items()} for model in found}

    def at(self, model: str, alias: str = CHAMPION) -> Version | None:
        """The version that has the alias."""
        if self._tables is not None:
            return next((version for version in self.versions(model) if alias in version.aliases), None)
        from mlflow.exceptions import MlflowException

        with self._client() as client:
            try:
                found = client.get_model_version_by_alias(model, alias)
            except MlflowException as error:
                if error.error_code in _NOT_THERE:
                    return None
                raise
        return _version(found, found.aliases)

    def content(self, version: Version) -> bytes:
        """The version's ONNX model."""
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):
                if file := self._tables.model_file(version.model, version.number, _FILE):
                    return file.read_bytes()
        return self._artifact(f"models:/{version.model}/{version.number}/{_FILE}")

    def card(self, version: Version) -> str:
        """The version's model card, as Markdown."""
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):
                if file := self._tables.run_file(version.run, _CARD):
                    return file.read_text()
        return self._artifact(f"runs:/{version.run}/{_CARD}").decode()

    def challenge(self, version: Version) -> Version:
        """Makes it the challenger."""
        with self._client() as client:
            client.set_registered_model_alias(version.model, CHALLENGER, str(version.number))
        return self.version(version.model, version.number)

    def promote(self, version: Version, why: str) -> None:
        """Makes it the champion; the one before can be gone back to."""
        before = self.at(version.model)
        with self._client() as client:
            name, number = version.model, str(version.number)
            client.set_model_version_tag(name, number, "promoted", why)
            if before and before.number != version.number:
                client.set_registered_model_alias(name, PREVIOUS, str(before.number))
            # The one alias that others read is moved last, in one step.
            client.set_registered_model_alias(name, CHAMPION, number)
            if CHALLENGER in version.aliases:
                client.delete_registered_model_alias(name, CHALLENGER)

    def rollback(self, model: str) -> Version:
        """Makes the champion before this one the champion again. Raises NoChampionBefore."""
        before, now = self._before_and_now(model)
        with self._client() as client:
            client.set_registered_model_alias(model, CHAMPION, str(before.number))
            client.set_registered_model_alias(model, PREVIOUS, str(now.number))
        return before

    def champion_before(self, model: str) -> Version:
        """Which version a rollback makes the champion. Raises NoChampionBefore."""
        return self._before_and_now(model)[0]

    def _before_and_now(self, model: str) -> tuple[Version, Version]:
        before, now = self.at(model, PREVIOUS), self.at(model)
        if before is None or now is None:
            raise NoChampionBefore(f"model {model!r} has no champion before this one to go back to")
        return before, now

    def _artifact(self, uri: str) -> bytes:
        from mlflow.artifacts import download_artifacts

        with self._client(), tempfile.TemporaryDirectory() as folder:
            return Path(download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self._uri)).read_bytes()

    @contextlib.contextmanager
    def _client(self) -> Iterator["MlflowClient"]:
        import mlflow
        import requests
        import sqlalchemy
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            mlflow.set_tracking_uri(self._uri)
            yield MlflowClient(self._uri, registry_uri=self._uri)
        except (requests.RequestException, sqlalchemy.exc.OperationalError) as error:
            raise self._away(error) from error
        except MlflowException as error:
            if "API request to" not in str(error):
                raise
            raise self._away(error) from error

    def _away(self, error: Exception) -> RegistryAway:
        return RegistryAway(
            f"the model registry at {self._uri} is away ({str(error).splitlines()[0]}); the champion stays as it is. "
            "Start it, or set CITY_MLFLOW_URL"
        )


def _version(found: Any, aliases: Sequence[str]) -> Version:
    return Version(
        found.name, int(found.version), str(found.run_id), tuple(sorted(aliases)), found.tags, found.creation_timestamp
    )
