"""A model's whole life in a real registry: trained, promoted only when better, gone back from; and what goes wrong."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest

from city.models import judge
from city.models.compatible import INPUTS, inputs_digest, takes_inputs
from city.models.examples import inputs, label_rows
from city.models.exported import Exported, check_agreement, export
from city.models.fitting import fit
from city.models.model import Model, ModelError
from city.models.registry import CHALLENGER, CHAMPION, PREVIOUS, NoSuchVersion, Registry
from city.models.search import search
from city.models.train import train
from city.settings import Settings
from city.stack.embedded import environment
from city_assets.traffic.models import CONGESTION, MODELS
from tests.city.models.rows import END, traffic

SPEED = replace(MODELS[-1], space=None)
LEVEL = replace(CONGESTION, space=None)
BEFORE, NOW = traffic(back=0.25), traffic(back=0.25, seed=2)
OTHER = traffic(back=0.05, seed=3)  # where speeds come back more slowly


def teach(model: Model, rows: pl.DataFrame, registry: Registry, **options: Any) -> Any:
    return train(model, rows, registry, **{"data_version": 1, "now": END} | options)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(Settings(home=tmp_path_factory.mktemp("home")))


def test_a_model_lives(registry: Registry) -> None:
    first = teach(SPEED, BEFORE, registry)
    assert first.promoted
    assert "the first, and better than the naive answer" in first.reason
    assert first.fitted.scores["model"]["mae"] < first.fitted.scores["naive"]["mae"]
    assert registry.version(SPEED.name, 1).aliases == (CHAMPION,)

    same = teach(SPEED, BEFORE, registry)
    assert not same.promoted
    assert "not surely better" in same.reason
    assert same.version.aliases == (CHALLENGER,)

    waiting = teach(SPEED, OTHER, registry, promote=False)
    assert "waiting for `city models promote traffic_speed_15`" in waiting.reason
    assert registry.at(SPEED.name).number == 1  # type: ignore[union-attr]

    better = teach(SPEED, OTHER, registry)
    assert better.promoted
    assert better.fitted.scores["model"]["mae"] < better.fitted.scores["champion"]["mae"]
    assert registry.at(SPEED.name).number == 4  # type: ignore[union-attr]
    assert registry.at(SPEED.name, PREVIOUS).number == 1  # type: ignore[union-attr]
    assert "Against the champion: better" in registry.card(better.version)

    assert registry.rollback(SPEED.name).number == 1
    assert registry.at(SPEED.name).number == 1  # type: ignore[union-attr]
    assert registry.rollback(SPEED.name).number == 4  # and back again

    rows = inputs(SPEED, label_rows(SPEED, NOW))
    served = Exported(SPEED, registry.content(registry.version(SPEED.name, 4))).predict(rows)
    assert served.shape == (len(rows),)
    assert np.isfinite(served).all()
    same_as_mlflow_says(registry, SPEED.name)


def same_as_mlflow_says(registry: Registry, name: str) -> None:
    """What is read from MLflow's tables is what MLflow itself answers."""
    read = registry.versions(name), registry.aliases(), registry.content(registry.version(name, 4))
    read += (registry.card(registry.version(name, 4)), registry.at(name), registry.at(name, "nobody"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_tables", None)
        answered = registry.versions(name), registry.aliases(), registry.content(registry.version(name, 4))
        answered += (registry.card(registry.version(name, 4)), registry.at(name), registry.at(name, "nobody"))
    assert read == answered


def test_a_process_that_reads_the_registry_does_not_load_mlflow(config: Settings, tmp_path: Path) -> None:
    code = (
        "import sys; from city.models.registry import Registry; from city.settings import settings; "
        "registry = Registry(settings()); assert registry.aliases() == {} and registry.versions('m') == []; "
        "assert registry.at('m') is None; sys.exit('mlflow' in sys.modules)"
    )
    environ = os.environ | environment(config)
    assert subprocess.run([sys.executable, "-c", code], env=environ).returncode == 0


def test_a_run_says_what_it_was(registry: Registry, tmp_path: Path) -> None:
    version = teach(LEVEL, BEFORE, registry, data_version=7).version
    assert version.tags["data_version"] == "7"
    assert version.tags["code_version"]
    assert 0 < version.metrics["model_accuracy"] <= 1
    card = registry.card(version)
    for words in ("Delta version 7", "one of low, medium, high", "| naive |", "speed_neighbours", "learning_rate"):
        assert words in card
    from mlflow import MlflowClient

    client = MlflowClient(registry.uri)
    run = client.get_run(version.run)
    assert run.data.params["max_iter"] == str(LEVEL.defaults["max_iter"])
    assert {file.path for file in client.list_artifacts(version.run)} >= {"card.md", "outcome.png", "importance.png"}
    logged = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    files = {file.path for file in client.list_logged_model_artifacts(logged.model_id)}
    assert {"MLmodel", "model.onnx", "input_example.json"} <= files


def test_a_failed_training_leaves_the_champion(registry: Registry) -> None:
    champion = teach(replace(SPEED, name="kept"), BEFORE, registry).version

    def broken(parameters: Any) -> Any:
        raise MemoryError("no room")

    for rows, estimator, error, says in (
        (BEFORE.head(90), SPEED.estimator, ModelError, "too few"),
        (BEFORE, broken, MemoryError, "no room"),
    ):
        with pytest.raises(error, match=says):
            teach(replace(SPEED, name="kept", estimator=estimator), rows, registry)
    assert [v.number for v in registry.versions("kept")] == [1]
    assert registry.at("kept") == champion


def test_a_champion_with_other_inputs_is_not_compared_with(registry: Registry) -> None:
    """A release may change a model's inputs."""
    model = replace(SPEED, name="changed")
    first = teach(model, BEFORE, registry)
    assert INPUTS not in first.version.tags, "the ONNX file has the names"
    assert takes_inputs(model, first.version, registry)
    changed, lines = replace(model, inputs=model.inputs[:-1]), list[str]()
    assert not takes_inputs(changed, first.version, registry)
    assert not takes_inputs(replace(model, inputs=model.inputs[::-1]), first.version, registry)
    second = teach(changed, BEFORE, registry, progress=lines.append)
    assert second.promoted
    assert "changed: version 1 takes other inputs, so it is not compared with" in lines
    assert takes_inputs(changed, second.version, registry)


def test_versions_of_earlier_releases_have_a_digest_of_their_inputs_or_only_their_number(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(SPEED, name="older")
    version = teach(model, BEFORE, registry).version
    nameless = onnx.load_model_from_string(registry.content(version))
    del nameless.metadata_props[:]
    monkeypatch.setattr(registry, "content", lambda version: nameless.SerializeToString())
    reversed_inputs = replace(model, inputs=model.inputs[::-1])
    shorter = replace(model, inputs=model.inputs[:-1])
    tagged = replace(version, run="tagged", tags=version.tags | {INPUTS: inputs_digest(model)})
    assert [takes_inputs(each, tagged, registry) for each in (model, reversed_inputs, shorter)] == [True, False, False]
    bare = replace(version, run="bare")
    assert [takes_inputs(each, bare, registry) for each in (model, reversed_inputs, shorter)] == [True, True, False]


def test_an_export_that_disagrees_is_not_registered() -> None:
    from sklearn.linear_model import LinearRegression

    x = np.random.default_rng(0).normal(size=(200, len(SPEED.inputs))).astype(np.float32)
    fitted = LinearRegression().fit(x, x[:, 0])
    assert Exported(SPEED, export(SPEED, fitted, x)).predict(x) == pytest.approx(x[:, 0], abs=1e-4)

    class Other(LinearRegression):
        """Predicts what its coefficients, which are exported, do not say."""

        def predict(self, rows: Any) -> Any:
            return super().predict(rows) + 1.0

    with pytest.raises(ModelError, match="cannot be exported|differs from the fitted one"):
        export(SPEED, Other().fit(x, x[:, 0]), x)
    with pytest.raises(ModelError, match=r"differs from the fitted one in 100.0% of rows"):
        check_agreement(SPEED, x[:, 0], x[:, 0] + 1)
    with pytest.raises(ModelError, match=f"takes {len(SPEED.inputs)} inputs, not 1"):
        Exported(replace(SPEED, inputs=("speed_mean",)), export(SPEED, fitted, x))
    with pytest.raises(ModelError, match=r"takes other inputs: positions, .* differ"):
        Exported(replace(SPEED, inputs=("positions", *SPEED.inputs[1:])), export(SPEED, fitted, x))
    with pytest.raises(ModelError, match="takes its inputs in another order"):
        Exported(replace(SPEED, inputs=SPEED.inputs[::-1]), export(SPEED, fitted, x))


def test_inputs_that_tell_nothing_are_left_to_the_side_and_still_taken() -> None:
    rows = BEFORE.with_columns(speed_std=pl.lit(None, pl.Float64), vehicle_count=pl.lit(3))
    fitted = fit(SPEED, rows, champion=None, now=END)
    assert fitted.importance["speed_std"] == fitted.importance["vehicle_count"] == 0
    assert fitted.scores["model"]["mae"] < fitted.scores["naive"]["mae"]


def test_a_class_that_training_had_not_keeps_its_place() -> None:
    slow = BEFORE.with_columns(pl.col("^speed_(mean|lag_.|recent|neighbours)$").clip(upper_bound=20.0))
    fitted = fit(LEVEL, slow, champion=None, now=END)
    assert fitted.predicted.shape[1] == 3
    assert (fitted.predicted[:, 0] == 0).all()  # nothing was low
    np.testing.assert_allclose(fitted.predicted.sum(1), 1, atol=1e-5)


def test_a_registry_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Registry(Settings(mlflow_url="http://127.0.0.1:9"))
    with pytest.raises(ModelError, match=r"registry at http://127.0.0.1:9 is unavailable .* the champion stays"):
        away.at(SPEED.name)


def test_there_is_nothing_to_go_back_to(registry: Registry) -> None:
    with pytest.raises(ModelError, match="no champion before this one"):
        registry.rollback("moon")
    for number in (0, 3):
        with pytest.raises(NoSuchVersion, match=f"no version {number}"):
            registry.version("moon", number)


def test_one_version_is_read_without_the_others(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "read_alone"
    champion = teach(replace(SPEED, name=name), BEFORE, registry).version

    def listed(*_: Any, **__: Any) -> None:
        raise AssertionError("all versions were listed")

    monkeypatch.setattr(registry, "versions", listed)
    assert registry.version(name, 1) == registry.at(name) == champion
    monkeypatch.setattr(registry, "_tables", None)
    monkeypatch.setattr("mlflow.MlflowClient.search_model_versions", listed)
    assert registry.version(name, 1) == registry.at(name) == champion
    for missing in ((name, 2), (name, 0), ("moon", 3)):
        with pytest.raises(NoSuchVersion, match="has no version"):
            registry.version(*missing)


def test_a_search_is_bounded_and_goes_on_where_it_was_left(tmp_path: Path) -> None:
    seconds: list[float] = []
    model = replace(
        CONGESTION, trials=6, space=lambda trial: {"x": trial.suggest_float("x", -1, 1)}, defaults={"x": 0.9}
    )

    def loss(parameters: dict[str, Any]) -> float:
        seconds.append(parameters["x"])
        if len(seconds) == 3:
            raise KeyboardInterrupt
        return abs(parameters["x"] - 0.2)

    with pytest.raises(KeyboardInterrupt):
        search(model, loss, tmp_path / "search.db", "study")
    assert seconds[0] == 0.9
    best = search(model, loss, tmp_path / "search.db", "study")
    assert len(seconds) in (6, 7)
    assert best["x"] == min(seconds[:2] + seconds[3:], key=lambda x: abs(x - 0.2))
    count = len(seconds)
    assert search(model, loss, tmp_path / "search.db", "study") == best
    assert len(seconds) == count


def test_a_challenger_must_be_better_beyond_chance_and_nowhere_worse() -> None:
    chance = np.random.default_rng(0)
    champion = chance.gamma(2, 1, 3000)
    rush = np.repeat(["yes", "no", "no"], 1000)
    better = champion - 0.2 + chance.normal(0, 0.3, 3000)
    assert judge.compare(champion, better, {"rush": rush}).better
    assert not judge.compare(champion, champion + chance.normal(0, 0.3, 3000), {}).better
    uneven = judge.compare(champion, np.where(rush == "yes", champion + 0.2, champion - 0.5), {"rush": rush})
    assert not uneven.better
    assert uneven.worse_segments == ("rush = yes",)
    few = judge.compare(champion[:60], champion[:60] - 0.01 + chance.normal(0, 1, 60), {})
    assert not few.better
    assert few.low < few.gain < few.high
