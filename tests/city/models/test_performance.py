"""What a version's outcomes say of it."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import precision_recall_fscore_support

from city.drift.measures import Measurement
from city.models.model import models
from city.models.performance import is_young, performance, promises, verdicts
from city.models.predictions import schema
from city.models.registry import Version

MODELS = models()
CONGESTION, SPEED = MODELS["traffic_congestion"], MODELS["traffic_speed_15"]
CHANCE = np.random.default_rng(3)


def judged(model: str, **columns: object) -> pl.DataFrame:
    of = MODELS[model]
    count = max(len(values) for values in columns.values())  # type: ignore[arg-type]
    empty = {name: pl.Series([None] * count, dtype=kind) for name, kind in schema(of).items()}
    return pl.DataFrame(empty).with_columns(**{n: pl.Series(v, dtype=schema(of)[n]) for n, v in columns.items()})


def test_a_classifier_is_right_as_often_as_it_says() -> None:
    outcomes = CHANCE.choice(["low", "high"], 2_000)
    right = CHANCE.random(2_000) < 0.8
    said = np.where(right, outcomes, "medium")
    rows = judged("traffic_congestion", outcome=outcomes, prediction=said, confidence=[0.8] * 2_000, loss=[0.2] * 2_000)
    figures = performance(CONGESTION, rows)
    assert figures["accuracy"] == pytest.approx(right.mean())
    assert figures["outcomes"] == 2_000
    assert figures["calibration_error"] < 0.03
    known = precision_recall_fscore_support(outcomes, said, average="macro", zero_division=0)[:3]
    assert (figures["precision"], figures["recall"], figures["f1"]) == pytest.approx(known)
    assert {v.name: v.passed for v in verdicts(CONGESTION, figures, None, None)} == {
        "calibrated": True,
        "lasting": None,
    }
    sure = performance(CONGESTION, rows.with_columns(confidence=pl.lit(0.99)))
    (calibrated,) = [v for v in verdicts(CONGESTION, sure, None, None) if v.name == "calibrated"]
    assert (calibrated.passed, "confidences are 0.1" in calibrated.description) == (False, True)


def test_intervals_hold_what_they_promise_or_not() -> None:
    missed = CHANCE.normal(0, 1, 1_000)
    rows = judged(
        "traffic_speed_15",
        outcome=[str(30 + error) for error in missed],
        prediction=["30"] * 1_000,
        low=[30 - 1.645] * 1_000,
        high=[30 + 1.645] * 1_000,
        loss=np.abs(missed),
        latency_ms=[5.0] * 1_000,
    )
    figures = performance(SPEED, rows)
    assert figures["mae"] == pytest.approx(np.abs(missed).mean())
    assert figures["coverage"] == pytest.approx(0.9, abs=0.03)
    assert figures["latency_p95_ms"] == 5.0
    assert {v.name: v.passed for v in verdicts(SPEED, figures, 0.9, None)} == {"covers": True, "lasting": None}
    narrow = performance(SPEED, rows.with_columns(low=pl.lit(29.0), high=pl.lit(31.0)))
    (covers,) = [v for v in verdicts(SPEED, narrow, 0.9, None) if v.name == "covers"]
    assert (covers.passed, "promised 90%" in covers.description) == (False, True)
    assert verdicts(SPEED, narrow, 0.9, None, young=True)[0].passed is None, "it has not seen a day yet"
    assert verdicts(SPEED, performance(SPEED, rows.head(499)), 0.9, None)[0].passed is None, "too few to say"


def test_losses_that_grew_are_decay() -> None:
    grown = Measurement(9.0, 1e-9, 1.5)
    assert [v.passed for v in verdicts(SPEED, {}, None, grown)] == [None, False]
    assert [v.passed for v in verdicts(SPEED, {}, None, Measurement(0.1, 0.4, 0.01))] == [None, True]
    assert [v.passed for v in verdicts(SPEED, {}, None, grown, young=True)] == [None, None]


def test_without_outcomes_nothing_is_said() -> None:
    rows = judged("traffic_speed_15", prediction=["30"] * 3)
    assert performance(SPEED, rows) == {}
    assert promises(SPEED) == ["covers", "lasting"]
    assert promises(CONGESTION) == ["calibrated", "lasting"]


def test_a_model_is_young_for_a_day() -> None:
    versions = [Version("m", 1, "run", (), {"trained_at": "2026-05-04T12:00:00+00:00"}, 0)]
    assert is_young(versions, datetime(2026, 5, 5, 11, tzinfo=UTC))
    assert not is_young(versions, datetime(2026, 5, 5, 13, tzinfo=UTC))
