"""The history of a new city: made once, resumed after an interruption, and like what the city does live."""

import functools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.stats import ks_2samp

from city.contracts.model import Contract
from city.contracts.schema import is_history
from city.lake.lakehouse import lakehouse
from city.settings import Settings
from city.stack.history_plan import HistoryPlan
from city.streaming.history import append_day, recorded_days
from city.tables.registry import select_tables
from city_assets import history
from city_assets.environment.contract import SENSORS
from city_assets.equipment.contract import SENSOR_READINGS
from city_assets.payments.contract import CHARGEBACKS, PAYMENTS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators import environment, equipment, payments, traffic
from simulators.faults import FaultRates, Faults
from tests.lakes import stream

END = datetime(2026, 5, 6, 6, tzinfo=UTC)
PLAN = HistoryPlan(END, 1, "America/New_York")
HOUR = datetime(2026, 5, 5, 18, tzinfo=UTC)
PLAN_ZONE = ZoneInfo("America/New_York")


@pytest.fixture
def config(config: Settings) -> Settings:
    return config.model_copy(update={"timezone": "America/New_York", "country": "US", "history_days": 1})


def read(path: Path) -> pl.DataFrame:
    return pl.read_delta(str(path))


def bronze_steps(config: Settings) -> list[history.Step]:
    return [step for step in history.steps(config, PLAN) if step.name.startswith("bronze ")]


def bronze(config: Settings, contract: Contract) -> pl.DataFrame:
    return read(config.lake / "bronze" / contract.name).sort("_offset")


CONTRACTS = (VEHICLE_POSITIONS, SENSORS, SENSOR_READINGS, PAYMENTS, CHARGEBACKS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A city whose bronze has a history of two days."""
    config = Settings(home=tmp_path_factory.mktemp("home"), timezone="America/New_York", country="US", history_days=1)
    for step in bronze_steps(config):
        step.run()
    return config


def test_a_history_that_was_interrupted_has_the_same_rows(made: Settings, config: Settings) -> None:
    for number, step in enumerate(bronze_steps(config)):
        if number % 2:
            step.run()
    for step in bronze_steps(config):  # and what is there already is not made again
        step.run()
    for contract in CONTRACTS:
        assert_frame_equal(bronze(config, contract), bronze(made, contract))


def test_a_day_that_is_killed_between_its_contracts_is_completed(made: Settings, config: Settings) -> None:
    step = next(step for step in bronze_steps(config) if "payments" in step.name)

    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        real, calls = history.append_day, list[object]()

        def count(*arguments: object) -> object:
            calls.append(arguments)
            return kill() if len(calls) == 3 else real(*arguments)  # type: ignore[arg-type]

        patch.setattr(history, "append_day", count)
        with pytest.raises(Killed):
            step.run()
    step.run()
    days = [*{*bronze(config, PAYMENTS)["timestamp"].dt.convert_time_zone("America/New_York").dt.date()}]
    of_days = pl.col("timestamp").dt.convert_time_zone("America/New_York").dt.date().is_in(days)
    assert_frame_equal(bronze(config, PAYMENTS), bronze(made, PAYMENTS).filter(of_days))


def test_every_event_is_valid_and_marked_as_history(made: Settings) -> None:
    for contract in CONTRACTS:
        rows = bronze(made, contract)
        assert rows.select(is_history(pl.col("_offset")).all()).item()
        assert rows["_offset"].n_unique() == rows.height
        assert rows.sort("_offset")[contract.event_time].is_sorted()
        assert rows[contract.event_time].min() >= PLAN.begin  # type: ignore[operator]
        assert rows[contract.event_time].max() < PLAN.end  # type: ignore[operator]
        assert (rows["_watermark"] == rows[contract.event_time]).all()
    assert not (made.lake / "quarantine" / "vehicle_positions").exists()


def test_what_a_contract_rejects_is_in_quarantine_with_its_reason(config: Settings) -> None:
    rows = pl.DataFrame(
        {
            "timestamp": [END, END + timedelta(seconds=1)],
            "vehicle_id": ["v1", "v2"],
            "latitude": [40.7, 40.7],
            "longitude": [-74.0, -74.0],
            "speed": [20.0, 900.0],
            "trip_id": [None, "t"],
        }
    )
    appended = append_day(config.lake, VEHICLE_POSITIONS, END.date(), rows)
    assert appended is not None
    assert (appended.rows, appended.rejected) == (1, 1)
    (reject,) = read(config.lake / "quarantine" / "vehicle_positions").to_dicts()
    assert "speed" in reject["reasons"][0]
    assert json.loads(reject["raw"])["speed"] == 900.0
    assert recorded_days(config.lake, VEHICLE_POSITIONS, [END.date()]) == [END.date()]
    assert append_day(config.lake, VEHICLE_POSITIONS, END.date(), rows) is None


LivePayloads = Callable[[Contract], pl.DataFrame]


@pytest.fixture(scope="module")
def live_payloads(made: Settings) -> LivePayloads:
    """Returns what the live simulator of a contract sends in an hour. It is simulated once."""
    return functools.cache(lambda contract: simulate_hour(contract, made))


def simulate_hour(contract: Contract, config: Settings) -> pl.DataFrame:
    events: list[dict[str, object]] = []
    if contract == VEHICLE_POSITIONS:
        city = traffic.Simulator(config, faults=0)
        for second in range(0, 3600, 20):
            events += [json.loads(m) for _, m in city.events(HOUR + timedelta(seconds=second), 100)]
    elif contract == SENSORS:
        sensors = environment.Simulator(config, faults=0)
        for second in range(0, 3600, 60):
            events += [json.loads(m) for _, m in sensors.events(HOUR + timedelta(seconds=second), 400)]
    elif contract == SENSOR_READINGS:
        machines = equipment.Simulator(config)
        machines._faults = Faults(FaultRates(), 0)  # of the network, which a history has not
        for second in range(0, 3600, 40):
            sent = machines.events(HOUR + timedelta(seconds=second), 24)
            events += [json.loads(m)["readings"] for topic, _, m in sent if topic == contract.topic]
    else:
        cards = payments.Simulator(config)
        cards._faults = Faults(FaultRates(), 0)
        cards._until = HOUR.timestamp()
        sent = cards.events(HOUR + timedelta(hours=1), 0)
        for topic, _, message in sent:
            if topic == contract.topic:
                events.append(json.loads(message))
    return pl.DataFrame(events, infer_schema_length=None)


@pytest.mark.parametrize(
    ("contract", "column", "by"),
    [
        (VEHICLE_POSITIONS, "speed", None),
        (VEHICLE_POSITIONS, "latitude", None),
        (SENSORS, "value", "traffic"),
        (SENSORS, "value", "air_quality"),
        (SENSORS, "value", "wind"),
        (SENSOR_READINGS, "vibration", None),
        (SENSOR_READINGS, "temperature", None),
        (PAYMENTS, "amount", None),
    ],
)
def test_history_and_live_events_of_an_hour_have_the_same_distribution(
    made: Settings, live_payloads: LivePayloads, contract: Contract, column: str, by: str | None
) -> None:
    past = bronze(made, contract).filter(pl.col("timestamp").is_between(HOUR, HOUR + timedelta(hours=1)))
    live = live_payloads(contract)
    if by:
        past, live = (frame.filter(pl.col("type") == by) for frame in (past, live))
    a, b = (frame[column].to_numpy() for frame in (past, live))
    assert min(len(a), len(b)) > 400
    # Readings of a vehicle or a machine are alike, so fewer are independent: the distance is bounded, and not its p.
    assert ks_2samp(a, b).statistic < 0.06
    assert np.mean(a) == pytest.approx(np.mean(b), rel=0.05)


def test_a_payment_of_the_history_is_the_payment_of_the_live_city(made: Settings, live_payloads: LivePayloads) -> None:
    past = bronze(made, PAYMENTS).filter(pl.col("timestamp").is_between(HOUR, HOUR + timedelta(hours=1)))
    live = live_payloads(PAYMENTS)
    assert set(live["payment_id"]) == set(past["payment_id"])
    times = live.select("payment_id", pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC"))
    assert_frame_equal(past.select("payment_id", "timestamp"), times, check_row_order=False)


def test_silver_of_history_is_silver_of_the_same_events_from_the_stream(made: Settings, config: Settings) -> None:
    """Also a table that is built after live events have come, and only for the hours with new ones."""
    rows = bronze(made, VEHICLE_POSITIONS).filter(
        pl.col("timestamp").is_between(HOUR, HOUR + timedelta(minutes=20), closed="left")
    )
    day = HOUR.astimezone(PLAN_ZONE).date()
    events = rows.select("vehicle_id", "timestamp", "latitude", "longitude", "speed", "trip_id")
    both: list[pl.DataFrame] = []
    for name in ("history", "stream"):
        city = config.model_copy(update={"home": config.home / name})
        if name == "history":
            append_day(city.lake, VEHICLE_POSITIONS, day, events)
        else:
            stream(city.lake, VEHICLE_POSITIONS, [payload(row) for row in events.to_dicts()], END)
        lake = lakehouse(city)
        for table in select_tables(["silver/vehicle_positions", "gold/traffic_cells_hourly", "gold/traffic_cells"]):
            lake.pinned().build(table, [day])
        tables = ("silver/vehicle_positions", "gold/traffic_cells", "gold/traffic_cells_hourly")
        both += [read(city.lake / table).drop("_partition", "_offset", strict=False) for table in tables]
    for past, live in zip(both[:3], both[3:], strict=True):
        columns = [name for name in past.columns if not name.startswith("_") and name != "arrived"]
        keys = [name for name in ("timestamp", "window_start", "hour", "vehicle_id", "cell") if name in columns]
        assert past.height > 20
        assert_frame_equal(past.select(columns).sort(keys), live.select(columns).sort(keys))


def test_live_events_of_a_day_with_history_are_built_too(config: Settings, made: Settings) -> None:
    rows = bronze(made, VEHICLE_POSITIONS).filter(pl.col("timestamp") >= HOUR).head(500)
    day = HOUR.astimezone(PLAN_ZONE).date()
    events = rows.select("vehicle_id", "timestamp", "latitude", "longitude", "speed", "trip_id")
    append_day(config.lake, VEHICLE_POSITIONS, day, events)
    (table,) = select_tables(["silver/vehicle_positions"])
    lakehouse(config).pinned().build(table, [day])
    late = [payload(row | {"vehicle_id": f"late_{n}"}) for n, row in enumerate(events.head(30).to_dicts())]
    stream(config.lake, VEHICLE_POSITIONS, late, END)
    lakehouse(config).pinned().build(table, [day])
    assert read(config.lake / "silver" / "vehicle_positions").height == 530


def payload(row: dict[str, object]) -> dict[str, object]:
    moment = row["timestamp"]
    assert isinstance(moment, datetime)
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {name: value for name, value in (row | {"timestamp": text}).items() if value is not None}


def test_the_newest_part_is_made_first(config: Settings) -> None:
    steps = history.steps(config, PLAN)
    first = [step.name for step in steps if history.is_recent(step, PLAN)]
    assert first == [step.name for step in steps[: len(first)]]
    assert {name.split()[1] for name in first} == {"environment", "equipment", "payments", "traffic"}
    progress = history.describe(steps, len(first), PLAN)
    assert progress.is_recent_made
    assert not history.describe(steps, len(first) - 1, PLAN).is_recent_made
    assert [history.describe(steps, n, PLAN).percent for n in (0, len(steps))] == [0, 100]


def test_questdb_gets_the_newest_block_at_once_and_the_older_ones_once_all_bronze_is_made(config: Settings) -> None:
    plan = HistoryPlan(END, 14, "America/New_York")
    names = [step.name for step in history.steps(config, plan)]
    kinds = [kind for kind, _ in groupby(name.split()[0] for name in names)]
    assert kinds[:5] == ["bronze", "hot", "bronze", "hot", "table"]
    hot = [name for name in names if name.startswith("hot tier ")]
    begin = next(history._blocks(plan))[0]
    half = len(hot) // 2
    assert hot[half:] == [f"{name} before {begin:%Y-%m-%d}" for name in hot[:half]]
    assert not any("devices" in name for name in hot), "low-rate topics have no tables in QuestDB"


def test_a_step_that_fails_leaves_the_steps_before_it_done(
    config: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = list[str]()

    def step(name: str, error: Exception | None = None) -> history.Step:
        def act() -> None:
            if error:
                raise error
            ran.append(name)

        return history.Step(name, 1.0, act)

    broken: Callable[[], list[history.Step]] = lambda: [step("one"), step("two", OSError("disk full")), step("three")]  # noqa: E731
    (config.home / "history").mkdir(parents=True)
    monkeypatch.setattr(history, "steps", lambda *_: broken())
    with pytest.raises(OSError, match="disk full"):
        history.run(config, PLAN, lambda *_: None)
    assert not history.is_finished(config)
    monkeypatch.setattr(history, "steps", lambda *_: [step("one"), step("two"), step("three")])
    history.run(config, PLAN, lambda *_: None)
    assert ran == ["one", "two", "three"]
    assert history.is_finished(config)
