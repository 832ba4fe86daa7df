"""Benchmarks of served models, on less data than the benchmark itself takes."""

from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import elec2, fleet, metr_la, trips
from benchmarks._detectors import FEATURES, LOOP_DETECTORS, messages
from benchmarks._served import on_public_data
from benchmarks._trips import real_trips, write_month
from city.models.examples import label_rows, labels
from city.settings import settings
from city.sources.mapping import map_messages
from city_assets.traffic.cell_tables import TRAFFIC_FEATURES
from city_assets.traffic.models import CONGESTION, speed_model

METR_LA = settings().data / "metr_la"


@pytest.mark.usefixtures("unmeasured")
def test_faults_and_lives_of_a_fleet_never_seen_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the models' defaults: neither the search nor the time that the stream takes is looked at here."""
    monkeypatch.setattr("city.models.fitting.search", lambda model, *of: dict(model.defaults))
    monkeypatch.setattr(fleet, "in_the_stream", partial(fleet.in_the_stream, events=100))
    figures = fleet.run(lambda line: None, train_hours=9, test_hours=4, seeds=(9,))
    assert figures["anomaly_f1"] > 0.95
    assert figures["anomaly_f1"] > 2 * figures["normal_ranges_f1"]
    assert figures["life_mae_hours"] < 0.5 * figures["life_mae_hours_of_the_median"]
    assert 0.86 < figures["life_coverage_90"] < 0.97


@pytest.mark.usefixtures("unmeasured")
def test_congestion_by_taxi_trips_is_predicted_for_later_days(data: Path) -> None:
    figures = trips.run(lambda line: None)
    assert (figures["train_rows"], figures["test_rows"], figures["trips"]) == (504, 305, 66_064)
    assert figures["test_days"] == "2016-03-10 to 2016-03-10"
    assert figures["accuracy"] > max(
        0.8, figures["commonest_accuracy"], figures["now_accuracy"], figures["week_ago_accuracy"]
    )
    assert figures["accuracy"] < figures["accuracy_bound"]
    assert figures["week_ago_share"] == 0, "no test day has trips a week before"


@pytest.mark.usefixtures("unmeasured")
def test_downloaded_months_are_taken_and_a_week_ago_is_known(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city.models.fitting.search", lambda model, *of: dict(model.defaults))
    with pytest.raises(FileNotFoundError, match="no file of trips"):
        trips.run(lambda line: None, tmp_path)
    write_month(tmp_path / "yellow_tripdata_2015-01.PARQUET", datetime(2015, 1, 1), 200_000, real_trips(), seed=0)
    (tmp_path / "taxi_zone_lookup.csv").write_text("LocationID,Borough\n")
    figures = trips.run(lambda line: None, tmp_path)
    assert figures["test_days"].endswith("to 2015-01-31")
    assert figures["week_ago_share"] > 0.8
    assert figures["accuracy"] > figures["commonest_accuracy"]


def test_detectors_become_events_in_the_units_of_the_contract() -> None:
    mapped = map_messages(LOOP_DETECTORS, messages(["773869", "767541"], np.array([[10.0, 60.0], [20.0, 0.0]])))
    assert not mapped.rejected
    assert mapped.events["cell"].to_list() == ["773869", "767541"] * 2
    assert mapped.events["speed"].to_list() == pytest.approx([16.09344, 96.56064, 32.18688, 0.0])
    assert str(mapped.events["timestamp"][2]) == "2012-03-01 08:05:00+00:00", "local time of Los Angeles"


def test_detectors_have_the_features_that_the_traffic_models_are_served_with() -> None:
    assert FEATURES.columns == TRAFFIC_FEATURES.columns
    assert all(
        set(model.inputs) <= {column.name for column in FEATURES.columns} for model in (CONGESTION, speed_model(15))
    )


@pytest.mark.skipif(not METR_LA.exists(), reason="needs METR-LA in CITY_DATA_DIR")
def test_detectors_are_served_online_as_they_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few trees: the models only have to be better than "as now"."""
    few = {"max_iter": 20, "learning_rate": 0.2}
    monkeypatch.setattr(
        metr_la, "_on_detectors", lambda model: replace(on_public_data(model, FEATURES), space=None, defaults=few)
    )
    figures = metr_la.run(lambda line: None)
    assert figures["rmse"] < 0.95 * figures["now_rmse"]
    assert figures["congestion_accuracy"] > figures["now_congestion_accuracy"]
    assert figures["online"]["rows"] > 5_000
    assert figures["online"]["largest_difference_of_a_feature"] == 0
    assert figures["online"]["largest_difference_of_a_prediction_mph"] == 0


def test_a_half_hour_is_labelled_with_its_own_class_and_knows_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = [0, 1, 1, 0, 1, 0, 0]
    half_hours = pl.DataFrame(
        {
            **{name: [number / 10 for number in range(len(classes))] for name in ("period", "nswprice", "nswdemand")},
            **dict.fromkeys(("vicprice", "vicdemand", "transfer"), 0.5),
            "class": classes,
        }
    )
    half_hours.write_csv(tmp_path / "elec.csv")
    monkeypatch.setattr(elec2, "real", lambda name: tmp_path / "elec.csv")
    rows = label_rows(elec2.MODEL, elec2.read_features())
    assert labels(elec2.MODEL, rows).tolist() == classes[:-1]
    assert rows["class_1"].to_list() == [None, *classes[:-2]]
    assert rows["class_2"].to_list() == [None, None, *classes[:-3]]
    assert rows["nswprice_change_2"].to_list()[2:] == pytest.approx([0.2] * 4)
    assert rows["class_mean"].to_list()[3] == pytest.approx(2 / 3)
