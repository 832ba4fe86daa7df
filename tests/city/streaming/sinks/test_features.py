"""Features from the stream: those of the tables, a moment after the event."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from city.features.online import online_store
from city.features.reader import FeatureReader
from city.features.views import view_of
from city.lake.reference import update
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.history import append_day
from city.streaming.records import Batch
from city.streaming.sinks.base import contract_windows
from city.streaming.sinks.features import FeatureSink, live_views
from city.tables.registry import select_tables
from city_assets.environment.contract import DEVICES, SENSORS
from city_assets.traffic.cell_tables import ROAD_LINKS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators.faults import FaultRates
from tests.lakes import drive, house, rows, stream
from tests.live import fresh, send, streaming, until
from tests.sensors import fleet

DAY = date(2026, 5, 4)
BEGIN = datetime(2026, 5, 4, 8, tzinfo=ZoneInfo("America/New_York"))
MIDNIGHT = datetime(2026, 5, 5, tzinfo=ZoneInfo("America/New_York"))
WEATHER = ("air_quality", "noise", "temperature", "humidity", "precipitation", "wind", "traffic")


def through_a_sink(config: Settings, contract, events: list[dict], batch: int) -> None:  # type: ignore[no-untyped-def, type-arg]
    """Streams events in batches; the sink is made anew in the middle, as after a crash."""
    sink: FeatureSink | None = None
    for number, first in enumerate(range(0, len(events), batch)):
        if sink is None or number == 7:
            bronze = BronzeStream(config.lake, contract)
            bronze.load([0])
            sink, windows = FeatureSink(contract, config, bronze), contract_windows(contract, bronze)
            position = sink.open({})
        stream(config.lake, contract, events[first : first + batch], BEGIN + timedelta(hours=18))
        rows = pl.read_delta(str(config.lake / "bronze" / contract.name)).filter(
            pl.col("_offset") >= position.get(0, 0)
        )
        batch_of = Batch(rows, position, {0: position.get(0, 0) + rows.height})
        sink.apply(rows, position, lambda windows=windows, batch=batch_of: windows.changed(batch))
        position = batch_of.end


def open_sink(config: Settings) -> Callable[[], None]:
    """Opens a sink of the vehicles at bronze's position; the function that applies a batch without rows."""
    bronze = BronzeStream(config.lake, VEHICLE_POSITIONS)
    bronze.load([0])
    sink, windows = FeatureSink(VEHICLE_POSITIONS, config, bronze), contract_windows(VEHICLE_POSITIONS, bronze)
    position = sink.open({})
    no_rows = pl.read_delta(str(config.lake / "bronze/vehicle_positions")).head(0)
    batch = Batch(no_rows, position, position)
    return lambda: sink.apply(no_rows, position, lambda: windows.changed(batch))


@pytest.mark.parametrize("begin", [BEGIN, MIDNIGHT - timedelta(minutes=20)], ids=["morning", "midnight"])
def test_online_traffic_is_what_the_table_has_of_the_last_window(config: Settings, begin: datetime) -> None:
    events = drive(begin, 0.5, vehicles=20, every=10)
    through_a_sink(config, VEHICLE_POSITIONS, events, 200)
    lake, view = house(config), view_of("traffic_features")
    for table in select_tables(["traffic_features"]):
        for day in (DAY, DAY + timedelta(days=1)):
            lake.build(table, [day])
    newest = rows(lake, "features/traffic_features", "as_of").unique("cell", keep="last").sort("cell")
    reader = FeatureReader(online_store(config), ["traffic_features"], (begin + timedelta(minutes=31)).timestamp)
    found = pl.DataFrame(reader.read([{"cell": cell} for cell in newest["cell"]]), infer_schema_length=None)
    offline = newest.select(*view.features)
    assert found.height > 20
    assert offline["speed_lag_1"].null_count() < offline.height
    assert_frame_equal(found.cast(offline.schema), offline, check_exact=False, abs_tol=1e-6)


@pytest.mark.parametrize("ago", [1, 3])
def test_what_was_learned_from_the_newest_built_day_is_online_as_in_the_table(
    config: Settings, monkeypatch: pytest.MonkeyPatch, ago: int
) -> None:
    monkeypatch.setattr("city_assets.traffic.cell_links._LEAST_WINDOWS", 2)
    lake, view = house(config), view_of("traffic_features")
    learned = DAY - timedelta(days=ago)
    before = drive(BEGIN - timedelta(days=ago), 1, vehicles=20, every=10, seed=1)
    stream(config.lake, VEHICLE_POSITIONS, before, BEGIN - timedelta(days=ago) + timedelta(hours=4))
    earlier = [table for table in select_tables(["traffic_features"]) if table.id != view.table.id]
    for table in earlier:
        lake.build(table, [learned])
    through_a_sink(config, VEHICLE_POSITIONS, drive(BEGIN, 0.5, vehicles=20, every=10), 200)
    for table in select_tables(["traffic_features"]):
        lake.build(table, [learned, DAY])
    newest = rows(lake, "features/traffic_features", "as_of").unique("cell", keep="last").sort("cell")
    newest = newest.filter(pl.col("day") == DAY)
    reader = FeatureReader(online_store(config), ["traffic_features"], (BEGIN + timedelta(minutes=31)).timestamp)
    found = pl.DataFrame(reader.read([{"cell": cell} for cell in newest["cell"]]), infer_schema_length=None)
    offline = newest.select(*view.features)
    for name in ("speed_usual", "speed_usual_later", "speed_level", "speed_leaders", "leaders_change"):
        assert offline[name].count() > 5, name
    assert_frame_equal(found.cast(offline.schema), offline, check_exact=False, abs_tol=1e-6)


@pytest.mark.parametrize("begin", [BEGIN, MIDNIGHT - timedelta(minutes=20)], ids=["morning", "midnight"])
def test_online_weather_is_what_the_table_has_of_the_last_window(config: Settings, begin: datetime) -> None:
    sensors = [s for s in fleet(FaultRates(), 0) if s.kind in WEATHER]
    moments = [begin.astimezone(UTC) + timedelta(minutes=n) for n in range(31)]
    events = [s.reading(moment) for moment in moments for s in sensors[: 5 * len(WEATHER)]]
    through_a_sink(config, SENSORS, events, 50)
    lake, view = house(config), view_of("weather_features")
    for table in select_tables(["weather_features"]):
        for day in (DAY, DAY + timedelta(days=1)):
            lake.build(table, [day])
    newest = rows(lake, "features/weather_features", "as_of").unique("location", keep="last").sort("location")
    reader = FeatureReader(online_store(config), ["weather_features"], (begin + timedelta(minutes=35)).timestamp)
    found = pl.DataFrame(reader.read([{"location": name} for name in newest["location"]]), infer_schema_length=None)
    assert newest.height == 5
    assert newest["temperature_lag_1"].null_count() == 0
    assert_frame_equal(found.cast(newest.select(*view.features).schema), newest.select(*view.features), abs_tol=1e-6)


def test_all_windows_are_pushed_again_after_a_reference_table_has_changed(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(config.lake, VEHICLE_POSITIONS, drive(BEGIN, 0.2, vehicles=20, every=10), BEGIN + timedelta(hours=1))
    apply_nothing = open_sink(config)
    reader = FeatureReader(online_store(config), ["traffic_features"], (BEGIN + timedelta(minutes=13)).timestamp)

    def online() -> pl.DataFrame:
        cells = sorted(online_store(config).keys("traffic_features", 500))
        return pl.DataFrame(reader.read([{"cell": cell} for cell in cells]), infer_schema_length=None).with_columns(
            cell=pl.Series(cells)
        )

    newest = online().filter(pl.col("window_start") == pl.col("window_start").max())
    cell, neighbour = newest["cell"][0], newest["cell"][-1]
    link = pl.DataFrame({"cell": [cell], "neighbour": [neighbour]})
    update(config.lake, ROAD_LINKS, lambda _: link, "a new road")
    expected = newest["speed_mean"][-1]

    def apply() -> float | None:
        apply_nothing()
        speed: float | None = online().filter(pl.col("cell") == cell)["speed_neighbours"][0]
        return speed

    monkeypatch.setattr("city.features.references.REREAD_SECONDS", 0)
    assert apply() != expected
    monkeypatch.setattr("city.streaming.sinks.features._PUSH_ALL_SECONDS", 0)
    assert apply() == pytest.approx(expected)


def test_a_history_that_comes_after_the_stream_has_begun_is_looked_back_at(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city.streaming.sinks.features.is_recent_missing", lambda config: True)
    stream(config.lake, VEHICLE_POSITIONS, drive(BEGIN, 0.1, vehicles=20, every=10), BEGIN + timedelta(hours=1))
    apply_nothing = open_sink(config)
    earlier = pl.DataFrame(drive(BEGIN - timedelta(minutes=12), 0.2, vehicles=20, every=10)).with_columns(
        pl.col("timestamp").str.to_datetime(time_zone="UTC", time_unit="us")
    )
    append_day(config.lake, VEHICLE_POSITIONS, DAY, earlier)
    for missing in (True, False):
        monkeypatch.setattr("city.streaming.sinks.features.is_recent_missing", lambda config, is_so=missing: is_so)
        apply_nothing()
        cells = sorted(online_store(config).keys("traffic_features", 500))
        reader = FeatureReader(online_store(config), ["traffic_features"], (BEGIN + timedelta(minutes=7)).timestamp)
        rows_online = pl.DataFrame(reader.read([{"cell": cell} for cell in cells]), infer_schema_length=None)
        newest = rows_online.filter(pl.col("window_start") == pl.col("window_start").max())
        lags = newest["speed_past_mean"] - newest.select(pl.mean_horizontal("speed_mean", "^speed_lag_.*$")).to_series()
        looks_further_back = (lags.abs() > 1e-3).any()
        assert looks_further_back == (not missing)


def test_a_contract_that_no_view_follows_from_has_no_sink() -> None:
    assert live_views(DEVICES) == []
    assert [view.name for view in live_views(VEHICLE_POSITIONS)] == ["traffic_features"]


def test_an_event_is_online_through_the_real_stream(stack: Settings) -> None:
    send(stack, VEHICLE_POSITIONS, *fresh(30))
    with streaming(VEHICLE_POSITIONS, stack):
        cell = until(lambda: online_store(stack).keys("traffic_features", 1))[0]
    found = FeatureReader(online_store(stack), ["traffic_features:positions"]).read([{"cell": cell}])
    assert found[0]["positions"] > 0
