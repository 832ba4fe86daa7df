"""The benchmark of the simulated fleet, on fewer hours and one fleet."""

from functools import partial

import pytest

from benchmarks import fleet


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
