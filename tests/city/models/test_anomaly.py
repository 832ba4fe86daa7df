"""What is normal: learned from normal rows alone, exported whole, and comparable between versions."""

from dataclasses import replace

import numpy as np
import pytest

from city.models.anomaly import SCORE, SHARES, SURPRISE, NormalRegion, contributions
from city.models.exported import Exported, export
from city_assets.equipment.models import ANOMALIES

SIGNALS = 6


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Six signals that two causes drive."""
    chance = np.random.default_rng(seed)
    causes = chance.normal(size=(count, 2)) @ np.random.default_rng(9).normal(size=(2, SIGNALS))
    return (5 + causes + 0.1 * chance.normal(size=(count, SIGNALS))).astype(np.float32)


def test_its_onnx_form_says_the_same_with_gaps_too() -> None:
    x = rows(1_000)
    x[::7, 2] = np.nan
    fitted = NormalRegion().fit(x)
    exported = Exported(ANOMALIES, export(ANOMALIES, fitted, x))
    np.testing.assert_allclose(exported.predict(x), fitted.predict(x), rtol=2e-3, atol=2e-3)
    empty = np.full((1, SIGNALS), np.nan, np.float32)
    assert exported.predict(empty)[0, SCORE] == 0
    assert exported.predict(empty)[0, SHARES:].sum() == pytest.approx(1)


def test_few_normal_rows_are_beyond_the_border_and_faults_are() -> None:
    fitted = NormalRegion(threshold=1.0).fit(rows(4_000))
    assert (fitted.predict(rows(4_000, 1))[:, SCORE] > 1).mean() == pytest.approx(0.005, abs=0.004)
    wrong = rows(500, 2)
    wrong[:, 3] += 2
    said = fitted.predict(wrong)
    assert (said[:, SCORE] > 1).all()
    assert (said[:, SHARES:].argmax(1) == 3).mean() > 0.99
    np.testing.assert_allclose(said[:, SHARES:].sum(1), 1)


def test_a_version_that_knows_what_goes_together_finds_normal_rows_less_surprising() -> None:
    seen, unseen = rows(3_000), rows(1_000, 5)
    knows = NormalRegion().fit(seen).predict(unseen)[:, SURPRISE]
    alone = NormalRegion().fit(seen, independent=True).predict(unseen)[:, SURPRISE]
    other = NormalRegion().fit(seen * np.float32(1.5)).predict(unseen)[:, SURPRISE]
    assert knows.mean() < alone.mean()
    assert knows.mean() < other.mean()


def test_how_surprising_is_the_gaussians_likelihood() -> None:
    """Whatever the border is: on Gaussian rows the surprise is that of a density that integrates to one."""
    from scipy import stats

    x = rows(20_000)[:, :2].astype(float)
    said = NormalRegion(explained=1.0, threshold=3.0).fit(x).predict(x)[:, SURPRISE]
    truth = -stats.multivariate_normal(x.mean(0), np.cov(x.T)).logpdf(x)
    assert said.mean() == pytest.approx(truth.mean(), abs=0.1)


def test_what_tells_nothing_takes_no_part() -> None:
    x = rows(500)
    x[:, 1], x[:, 4] = 7, np.nan
    said = NormalRegion().fit(x).predict(x)
    assert np.isfinite(said).all()
    assert (said[:, [SHARES + 1, SHARES + 4]] < 1e-12).all()
    with pytest.raises(ValueError, match="every input is constant"):
        NormalRegion().fit(np.ones((100, 3)))


def test_a_row_in_the_centre_has_no_culprit() -> None:
    np.testing.assert_allclose(contributions(np.eye(4), np.zeros((1, 4))), 0.25)


def test_a_version_of_other_inputs_is_refused() -> None:
    x = rows(300)
    content = export(ANOMALIES, NormalRegion().fit(x), x)
    with pytest.raises(ValueError, match="takes 6 inputs, not 1"):
        Exported(replace(ANOMALIES, inputs=("power_now",)), content)
