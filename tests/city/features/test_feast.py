"""Feast on our lake: joins that see nothing of the future, and the same values online as our own reader.

Feast takes seconds to import: only who runs these tests does that, not each lane that collects them.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.features.online import online_store, push
from city.features.reader import FeatureReader
from city.features.repository import feature_store, materialize_views
from city.features.views import view_of, views
from city.settings import Settings
from city.tables import TableError
from city.tables.registry import select_tables
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.lakes import drive, house, rows, stream

DAY = date(2026, 5, 4)
BEGIN = datetime(2026, 5, 4, 8, tzinfo=ZoneInfo("America/New_York"))
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
at = st.integers(0, 50)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), at, st.integers()), min_size=1, max_size=30, unique_by=lambda r: r[:2]),
    st.lists(st.tuples(st.sampled_from("abc"), at), min_size=1, max_size=20),
    st.none() | st.integers(0, 20),
)
def test_a_join_sees_just_what_was_known_and_nothing_later(
    known: list[tuple[str, int, int]], wanted: list[tuple[str, int]], ttl: int | None
) -> None:
    from city.features.feast import EVENT_TIMESTAMP, as_of

    features = pl.LazyFrame(
        {
            "k": [k for k, _, _ in known],
            "t": [NOON + timedelta(minutes=m) for _, m, _ in known],
            "x": [x % 97 for *_, x in known],
        }
    )
    entities = pl.LazyFrame(
        {"k": [k for k, _ in wanted], EVENT_TIMESTAMP: [NOON + timedelta(minutes=m) for _, m in wanted]}
    ).with_row_index("_row")
    limit = timedelta(minutes=ttl) if ttl is not None else None
    joined = as_of(entities, features, ["k"], "t", {"x": "x"}, limit).sort("_row").collect()["x"].to_list()
    for (key, minute), value in zip(wanted, joined, strict=True):
        past = [(m, x % 97) for k, m, x in known if k == key and m <= minute and (not ttl or m >= minute - ttl)]
        assert value == (max(past)[1] if past else None)


@pytest.fixture
def built(config: Settings) -> Settings:
    lake = house(config)
    stream(lake.root, VEHICLE_POSITIONS, drive(BEGIN, 3, vehicles=12, every=20), BEGIN + timedelta(hours=4))
    for table in select_tables(["traffic_features", "vehicle_features"]):
        lake.build(table, [DAY])
    return config


def test_training_rows_join_as_of_their_time(built: Settings) -> None:
    from city.features.feast import EVENT_TIMESTAMP

    store = feature_store(built)
    table = rows(house(built), "features/traffic_features", "cell", "as_of")
    cell = table["cell"].value_counts(sort=True)["cell"][0]
    of_cell = table.filter(pl.col("cell") == cell)
    first, second = of_cell.row(0, named=True), of_cell.row(1, named=True)
    wanted = pd.DataFrame(
        {
            "cell": [cell, cell, cell, "nowhere"],
            EVENT_TIMESTAMP: [
                first["as_of"] - timedelta(seconds=1),
                first["as_of"],
                second["as_of"] + timedelta(seconds=5),
                second["as_of"],
            ],
        }
    )
    features = ["traffic_features:speed_mean", "traffic_features:speed_lag_1"]
    historical = store.get_historical_features(wanted, features).to_df()
    assert historical["speed_mean"].replace({np.nan: None}).to_list() == [
        None,
        pytest.approx(first["speed_mean"]),
        pytest.approx(second["speed_mean"]),
        None,
    ]
    assert historical[EVENT_TIMESTAMP].to_list() == wanted[EVENT_TIMESTAMP].to_list(), "in the order they were asked in"


def test_feast_gives_online_what_our_reader_gives(built: Settings) -> None:
    store, view = feature_store(built), view_of("traffic_features")
    newest = rows(house(built), "features/traffic_features", "as_of", "cell").tail(5)
    shift = datetime.now(UTC) - timedelta(minutes=5) - newest["as_of"].max()  # type: ignore[operator]
    push(online_store(built), view, newest.with_columns(pl.col("as_of") + shift))
    names = [f"traffic_features:{name}" for name in view.features]
    entities = [{"cell": cell} for cell in newest["cell"].to_list()]
    theirs = store.get_online_features(names, entities).to_dict()
    ours = FeatureReader(online_store(built), names).read(entities)
    for name in view.features:
        of_feast = [v.replace(tzinfo=UTC) if isinstance(v, datetime) else v for v in theirs[name]]
        assert of_feast == [row[name] for row in ours], name


def test_views_say_what_they_are_and_are_found_by_feast(built: Settings) -> None:
    store = feature_store(built)
    assert {view.name for view in store.list_feature_views()} == set(views())
    assert {e.name for e in store.list_entities()} >= {"cell", "location", "sensor_id", "vehicle_id"}
    feature_view = store.get_feature_view("traffic_features")
    assert feature_view.tags == {"version": "1", "table": "features/traffic_features"}
    assert next(f for f in feature_view.features if f.name == "speed_mean").description == "mean speed [km/h]"


def test_history_is_materialised_for_the_newest_of_each_entity(built: Settings) -> None:
    written = materialize_views(built, timedelta(days=1))
    vehicles = rows(house(built), "features/vehicle_features", "vehicle_id", "as_of")
    assert written["vehicle_features"] == 12
    row = online_store(built).read("vehicle_features", ["v3"])[0]
    newest = vehicles.filter(pl.col("vehicle_id") == "v3").row(-1, named=True)
    assert row is not None
    assert row.features["speed_mean"] == pytest.approx(newest["speed_mean"])


def test_feast_materialises_through_our_stores_too(built: Settings) -> None:
    store = feature_store(built)
    end = BEGIN.astimezone(UTC) + timedelta(hours=4)
    store.materialize(end - timedelta(days=1), end, feature_views=["vehicle_features"])
    assert online_store(built).read("vehicle_features", ["v3"])[0] is not None


def test_what_is_asked_for_at_request_time_is_computed_alike(built: Settings) -> None:
    store, view = feature_store(built), view_of("traffic_features")
    newest = rows(house(built), "features/traffic_features", "as_of", "cell").tail(3)
    shift = datetime.now(UTC) - timedelta(minutes=5) - newest["as_of"].max()  # type: ignore[operator]
    push(online_store(built), view, newest.with_columns(pl.col("as_of") + shift))
    names = ["traffic_features:speed_mean", "traffic_now:speed_trend", "traffic_now:minutes_ahead_in_rush"]
    cells = newest["cell"].unique(maintain_order=True).to_list()
    ours = FeatureReader(online_store(built), names).read([{"cell": c} for c in cells], {"minutes_ahead": 15.0})
    theirs = store.get_online_features(names, [{"cell": c, "minutes_ahead": 15.0} for c in cells]).to_dict()
    for name in ("speed_mean", "speed_trend", "minutes_ahead_in_rush"):
        assert theirs[name] == pytest.approx([row[name] for row in ours]), name
    last = newest.unique("cell", keep="last", maintain_order=True).row(0, named=True)
    trend = next(row["speed_trend"] for row, c in zip(ours, cells, strict=True) if c == last["cell"])
    assert trend == pytest.approx(last["speed_mean"] - last["speed_recent"])
    with pytest.raises(TableError, match="'traffic_now' needs of the request: minutes_ahead"):
        FeatureReader(online_store(built), names).read([{"cell": cells[0]}])
