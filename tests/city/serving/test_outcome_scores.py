"""Scores of versions from outcomes as they come."""

import json

import numpy as np
import polars as pl
import pytest

from city.models.performance import performance
from city.models.predictions import CONFIDENCE, LOSS, OUTCOME, PREDICTION, schema
from city.serving.outcome_scores import RECENT_OUTCOMES, OutcomeScores
from city.settings import Settings
from tests.city.serving.served import LEVEL, SPEED

NOW = 1_795_680_000.0
MODELS = {model.name: model for model in (SPEED, LEVEL)}
CHANCE = np.random.default_rng(5)


@pytest.fixture
def scores(config: Settings) -> OutcomeScores:
    return OutcomeScores(config, MODELS)


def tell(scores: OutcomeScores, losses: list[float], at: float = NOW, version: int = 1) -> None:
    for loss in losses:
        scores.add("speed", version, at, 30.0, str(30 + loss), loss)


def test_they_are_those_of_the_same_outcomes_in_the_lake(scores: OutcomeScores) -> None:
    said, outcomes = (CHANCE.choice(["low", "medium", "high"], 400, p=p) for p in ([0.6, 0.3, 0.1], [0.5, 0.5, 0.0]))
    for prediction, outcome in zip(said, outcomes, strict=True):
        scores.add("level", 2, NOW, str(prediction), str(outcome), 0.3)
    kinds = schema(LEVEL)
    columns = {PREDICTION: said, OUTCOME: outcomes, LOSS: np.full(400, 0.3), CONFIDENCE: np.full(400, 0.5)}
    rows = pl.DataFrame({name: pl.Series([None] * 400, dtype=kind) for name, kind in kinds.items()})
    known = performance(LEVEL, rows.with_columns(**{n: pl.Series(v, dtype=kinds[n]) for n, v in columns.items()}))
    known.pop("calibration_error")
    assert scores.scores("level", 2, NOW) == {"recent": pytest.approx(known), "hour": pytest.approx(known)}
    assert scores.scores("level", 1, NOW) == {}


def test_the_newest_thousand_and_the_last_hour_count(scores: OutcomeScores) -> None:
    tell(scores, [8.0] * 600, NOW - 3 * 3600)
    tell(scores, [4.0] * 600, NOW - 1800)
    tell(scores, [2.0] * 200, NOW)
    figures = scores.scores("speed", 1, NOW)
    assert figures["recent"] == {
        "outcomes": RECENT_OUTCOMES,
        "mae": pytest.approx((200 * 8 + 600 * 4 + 200 * 2) / 1000),
    }
    assert figures["hour"] == {"outcomes": 800, "mae": pytest.approx(3.5)}
    assert scores.scores("speed", 1, NOW + 1900)["hour"] == {"outcomes": 200, "mae": pytest.approx(2)}
    later = scores.scores("speed", 1, NOW + 4000)
    assert (later["recent"]["outcomes"], later["hour"]) == (RECENT_OUTCOMES, {})


def test_rules_have_those_of_the_champion_once_there_are_enough(scores: OutcomeScores) -> None:
    tell(scores, [1.0] * 29)
    tell(scores, [9.0] * 50, version=2)
    few = {"model.recent_mae.speed": None, "model.hour_mae.speed": None}
    assert scores.metrics({"speed": 1, "level": 1}, NOW) == few | {
        "model.recent_outcomes.speed": 29.0,
        "model.hour_outcomes.speed": 29.0,
    }
    tell(scores, [1.0])
    assert scores.metrics({"speed": 1}, NOW)["model.recent_mae.speed"] == 1
    assert scores.metrics({"speed": 2}, NOW)["model.recent_mae.speed"] == 9


def test_a_server_that_starts_again_goes_on_from_them(config: Settings, scores: OutcomeScores) -> None:
    tell(scores, [2.0] * 30)
    for outcome in ("low", "high"):
        scores.add("level", 3, NOW, "low", outcome, 0.1)
    scores.save()
    again = OutcomeScores(config, MODELS)
    assert again.scores("speed", 1, NOW) == scores.scores("speed", 1, NOW) != {}
    assert again.scores("level", 3, NOW)["hour"]["accuracy"] == 0.5
    tell(again, [4.0] * 10)
    assert again.scores("speed", 1, NOW)["recent"] == {"outcomes": 40, "mae": pytest.approx(2.5)}


@pytest.mark.parametrize("content", ["", "[]", '{"speed": {"one": 1}}', '{"speed": {"1": {"newest": 7}}}', "{"])
def test_a_file_that_cannot_be_read_is_begun_anew(config: Settings, content: str) -> None:
    file = config.home / "serving" / "scores.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    scores = OutcomeScores(config, MODELS)
    tell(scores, [1.0])
    scores.save()
    assert json.loads(file.read_text())["speed"]["1"]["newest"] == [[None, None, 1.0]]


def test_what_is_kept_is_bounded(config: Settings, scores: OutcomeScores) -> None:
    for version in range(20):
        for minute in range(300):
            tell(scores, [1.0] * 5, NOW + 60 * minute, version)
    scores.save()
    kept = json.loads((config.home / "serving" / "scores.json").read_text())["speed"]
    assert list(kept) == ["16", "17", "18", "19"]
    assert {len(version["newest"]) for version in kept.values()} == {RECENT_OUTCOMES}
    assert {len(version["minutes"]) for version in kept.values()} == {60}


def test_outcomes_count_in_the_hour_after_a_clock_that_was_ahead_is_set_back(
    config: Settings, scores: OutcomeScores
) -> None:
    for minute in range(60):
        tell(scores, [8.0], NOW + 86_400 + 60 * minute)
    scores.save()
    for restarted in (scores, OutcomeScores(config, MODELS)):
        for minute in range(3):
            tell(restarted, [2.0] * 10, NOW + 60 * minute)
        assert restarted.scores("speed", 1, NOW + 120)["hour"] == {"outcomes": 30, "mae": pytest.approx(2)}


def test_what_cannot_be_written_is_written_later(config: Settings, scores: OutcomeScores) -> None:
    config.home.mkdir(parents=True, exist_ok=True)
    (config.home / "serving").write_text("no folder")
    tell(scores, [1.0])
    scores.save()
    (config.home / "serving").unlink()
    scores.save()
    assert OutcomeScores(config, MODELS).scores("speed", 1, NOW)["recent"]["outcomes"] == 1
