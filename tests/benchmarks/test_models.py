"""The benchmark of the simulated fleet, on fewer hours and one fleet."""

from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from benchmarks import fleet, trips
from benchmarks._trips import real_trips, write_month


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


@pytest.mark.usefixtures("unmeasured")
def test_congestion_by_taxi_trips_is_predicted_for_later_days(data: Path) -> None:
    found = trips.run(lambda line: None)
    assert (found["train_rows"], found["test_rows"], found["trips"]) == (504, 305, 66_064)
    assert found["test_days"] == "2016-03-10 to 2016-03-10"
    assert found["accuracy"] > max(0.8, found["commonest_accuracy"], found["now_accuracy"], found["week_ago_accuracy"])
    assert found["accuracy"] < found["accuracy_bound"]
    assert found["week_ago_share"] == 0, "no test day has trips a week before"


@pytest.mark.usefixtures("unmeasured")
def test_downloaded_months_are_taken_and_a_week_ago_is_known(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city.models.fitting.search", lambda model, *of: dict(model.defaults))
    with pytest.raises(FileNotFoundError, match="no file of trips"):
        trips.run(lambda line: None, tmp_path)
    write_month(tmp_path / "yellow_tripdata_2015-01.PARQUET", datetime(2015, 1, 1), 200_000, real_trips(), seed=0)
    (tmp_path / "taxi_zone_lookup.csv").write_text("LocationID,Borough\n")
    found = trips.run(lambda line: None, tmp_path)
    assert found["test_days"].endswith("to 2015-01-31")
    assert found["week_ago_share"] > 0.8
    assert found["accuracy"] > found["commonest_accuracy"]
