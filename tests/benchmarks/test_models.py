"""The benchmark that is quick enough for a test run, on the real runs, and what a missing folder gets."""

from functools import partial
from pathlib import Path

import pytest

from benchmarks import anomaly, fleet
from city.settings import settings

SKAB = settings().data / "skab"


@pytest.mark.skipif(not SKAB.exists(), reason="needs the real SKAB runs in CITY_DATA_DIR")
def test_anomalies_are_found_better_than_the_published_detectors_do() -> None:
    found = anomaly.run(lambda line: None, SKAB)
    assert found["f1"] > max(found["published_f1"].values())
    assert found["far"] < 0.3


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        anomaly.run(lambda line: None, tmp_path)


@pytest.mark.usefixtures("unmeasured")
def test_faults_and_lives_of_a_fleet_never_seen_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the models' defaults: neither the search nor the time that the stream takes is looked at here."""
    monkeypatch.setattr("city.models.fitting.search", lambda model, *of: dict(model.defaults))
    monkeypatch.setattr(fleet, "in_the_stream", partial(fleet.in_the_stream, events=100))
    found = fleet.run(lambda line: None, train_hours=9, test_hours=4, seeds=(9,))
    assert found["anomaly_f1"] > 0.95
    assert found["anomaly_f1"] > 2 * found["normal_ranges_f1"]
    assert found["life_mae_hours"] < 0.5 * found["life_mae_hours_of_the_median"]
    assert 0.86 < found["life_coverage_90"] < 0.97
