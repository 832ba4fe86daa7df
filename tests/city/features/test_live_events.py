"""Features of single events: what the stream makes of batches is what a build makes of the whole day."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from city.contracts.model import Contract
from city.features.online import online_store
from city.features.reader import FeatureReader
from city.features.views import view_of
from city.lake.reference import commission, update
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.sinks.features import Events, FeatureSink, earlier_events, live_views
from city.tables.registry import select_tables, table_of
from city.tables.schema import schema
from city_assets.equipment.contract import MAINTENANCE_LOG, SENSOR_READINGS
from city_assets.equipment.limits import default_type
from city_assets.features import compare
from city_assets.payments.contract import PAYMENTS
from simulators.payments import payloads
from simulators.world.machines import fleet
from simulators.world.payers import City
from tests.lakes import house, rows, stream

DAY = date(2026, 5, 4)
BEGIN = datetime(2026, 5, 4, 8, tzinfo=ZoneInfo("America/New_York"))


def readings(config: Settings) -> list[dict[str, object]]:
    machines = fleet(0, 3)
    commission(config.lake, "machine_sensors", [row for machine in machines for row in machine.ranges()])
    commission(config.lake, "machines", [machine.description() for machine in machines])
    commission(config.lake, "machine_types", [default_type(), default_type() | {"kind": "pump", "life_cap": 500.0}])
    moments = [BEGIN.astimezone(UTC) + timedelta(seconds=5 * n) for n in range(200)]
    return [reading for moment in moments for machine in machines if (reading := machine.reading(moment))]


def paid(config: Settings) -> list[dict[str, object]]:
    city, begin = City(3, rate=0.1, cards=12), BEGIN.timestamp()
    return list(payloads(city, city.events(begin, begin + 4000)))


def paid_with_history(config: Settings) -> list[dict[str, object]]:
    """Payments of which every second one comes with history, and every third one without a place."""
    payments = paid(config)
    for number, payment in enumerate(payments):
        if number % 2:
            history = {"card_mean_30d": 20.0 + number % 7, "card_count_1d": number % 5, "terminal_count_7d": 4}
            payment |= {"terminal": f"t{number % 9}", "history": history | {"terminal_fraud_share_7d": 0.25}}
        if number % 3 == 0:
            del payment["location"]
    return payments


@pytest.mark.parametrize(
    ("contract", "view", "made"),
    [
        (SENSOR_READINGS, "machine_features", readings),
        (PAYMENTS, "payment_features", paid),
        (PAYMENTS, "payment_features", paid_with_history),
    ],
)
def test_rows_of_the_stream_are_the_rows_of_the_table(config: Settings, contract: Contract, view: str, made) -> None:  # type: ignore[no-untyped-def]
    events = made(config)
    events += events[-3:]  # sent twice, the second time in another batch
    pushed, held = [], None
    size = 37 if len(events) % 37 > 3 else 36  # the repeated ones are in another batch than their first
    for number, first in enumerate(range(0, len(events), size)):
        before = len(events[:first])
        stream(config.lake, contract, events[first : first + size], BEGIN + timedelta(hours=4))
        batch = pl.read_delta(str(config.lake / "bronze" / contract.name)).filter(pl.col("_offset") >= before)
        if held is None or number == 4:  # anew, as after a crash
            bronze = BronzeStream(config.lake, contract)
            bronze.load([0])
            held = Events(view_of(view), contract, config)
            held.hold(earlier_events(contract, bronze, {0: before}))
        pushed.append(held.add(batch.sort("_offset")))
        assert pushed[-1][view_of(view).time].is_sorted(), "alarms follow a key's scores in this order"
    lake = house(config)
    for table in select_tables([view]):
        lake.build(table, [DAY])
    key = list(view_of(view).table.key)
    table = rows(lake, f"features/{view}", *key)
    assert table.height == len(events) - 3
    assert_frame_equal(pl.concat(pushed).sort(key), table, check_exact=False, abs_tol=1e-9)


def test_a_reference_table_of_an_earlier_release_is_built_from(config: Settings) -> None:
    """It lacks the columns that were added since."""
    now = table_of("reference/machine_sensors")
    older = replace(now, key=("machine_id", "signal"), columns=now.columns[:5])
    ranges = pl.DataFrame([row for machine in fleet(0, 3) for row in machine.ranges()]).select(schema(older).keys())
    update(config.lake, older, lambda _: ranges, "an earlier release")
    stream(config.lake, SENSOR_READINGS, readings(config), BEGIN + timedelta(hours=4))
    lake = house(config)
    for table in select_tables(["machine_features"]):
        lake.build(table, [DAY])
    built = rows(lake, "features/machine_features", "machine_id", "timestamp")
    assert built["power_now"].null_count() == 0
    assert sorted(built["life_cap_hours"].unique()) == [1.0, 500.0]


def test_a_late_event_changes_what_is_online_of_those_after_it(config: Settings) -> None:
    """A batch of newer events came first; the newest row of each card is then what the table has."""
    events = sorted(paid(config), key=lambda payload: str(payload["timestamp"]))
    newest = {str(event["card"]): event for event in events}
    late = [event for event in events[-60:] if newest[str(event["card"])] is not event][::3]
    assert len(late) > 3
    bronze = BronzeStream(config.lake, PAYMENTS)
    bronze.load([0])
    sink, sent = FeatureSink(PAYMENTS, config, bronze), 0
    sink.open({})
    for batch in ([event for event in events if event not in late], late):
        stream(config.lake, PAYMENTS, batch, BEGIN + timedelta(hours=4))
        new = pl.read_delta(str(bronze.path)).filter(pl.col("_offset") >= sent).sort("_offset")
        sink.apply(new, {0: sent}, dict)
        sent += new.height
    lake = house(config)
    for table in select_tables(["payment_features"]):
        lake.build(table, [DAY])
    offline = rows(lake, "features/payment_features", "card", "timestamp").lazy()
    compared, different = compare(view_of("payment_features"), online_store(config), [offline])
    assert compared > 5
    assert different == []


def test_the_newest_reading_of_a_machine_is_online(config: Settings) -> None:
    events = readings(config)
    stream(config.lake, SENSOR_READINGS, events, BEGIN + timedelta(hours=4))
    bronze = BronzeStream(config.lake, SENSOR_READINGS)
    bronze.load([0])
    sink = FeatureSink(SENSOR_READINGS, config, bronze)
    assert sink.open({}) == {0: len(events)}
    sink.apply(pl.read_delta(str(bronze.path)).head(0), {0: len(events)}, dict)
    last = events[-1]
    stream(config.lake, SENSOR_READINGS, [last | {"timestamp": "2026-05-04T12:30:00.000Z"}], BEGIN + timedelta(hours=5))
    sink.apply(pl.read_delta(str(bronze.path)).filter(pl.col("_offset") == len(events)), {0: len(events)}, dict)
    read = FeatureReader(online_store(config), ["machine_features:power_now"], BEGIN.timestamp)
    (features,) = read.read([{"machine_id": last["machine_id"]}])
    assert features["power_now"] is not None


def test_a_topic_of_states_has_no_features_of_its_events() -> None:
    assert live_views(MAINTENANCE_LOG) == []
    assert [view.name for view in live_views(PAYMENTS)] == ["payment_features"]
