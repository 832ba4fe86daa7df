"""What is built when: the real definitions, the real sensor, and an instance, while time is moved."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from city.contracts.registry import contracts
from city.lake.days import first_day
from city.settings import Settings
from city_assets import keys
from city_assets.definitions import build
from city_assets.environment.contract import DEVICES
from city_assets.monitoring.quality import quality_key
from city_assets.traffic.contract import VEHICLE_POSITIONS
from sensors_and_schedules.keep_fresh import BUILD
from sensors_and_schedules.turns import TAKES_TURNS
from tests.lakes import drive, stream
from tests.ticks import TODAY, ZONE, City, days_of, selected

BEGIN = TODAY - timedelta(days=40)
BRONZE, QUARANTINE = keys.bronze(VEHICLE_POSITIONS), keys.quarantine(VEHICLE_POSITIONS)
SILVER, QUALITY = keys.table("silver/vehicle_positions"), quality_key(VEHICLE_POSITIONS)
ONLINE = dg.AssetKey(["features", "online"])


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    """The definitions of a city whose lake begins 40 days ago, so that days are there to be marked by mistake."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "first_day", lambda *_: BEGIN)
        repository = build().get_repository_def()
    keys.reload_days()
    return repository


@pytest.fixture
def city(config: Settings, repository: dg.RepositoryDefinition) -> Iterator[City]:
    with dg.DagsterInstance.ephemeral() as instance:
        city = City(instance, repository)
        assert city.tick(0) == []
        yield city


def test_an_hour_of_rows_is_one_run_a_tick_of_today_alone(city: City) -> None:
    """The fault that was seen: five minutes past the first full hour, 330 days of quality."""
    assert city.tick(9) == [], "nothing came"
    for minutes in (19, 59, 69):
        city.grew(BRONZE, QUARANTINE, keys.bronze(DEVICES), keys.quarantine(DEVICES))
        (run,) = city.tick(minutes)
        city.grew(BRONZE, QUARANTINE)
        assert city.tick(minutes + 5) == [], "not at a tick"
        assert days_of(run) == [TODAY]
        assert {SILVER, ONLINE} <= selected(run)
        assert (QUALITY in selected(run)) == (minutes == 59), "once, at the full hour"
    assert {run.tags[BUILD] for run in city.runs} == {"newest"}
    assert len(city.tick(79)) == 1, "of what came after the last tick"
    assert city.tick(89) == [], "nothing came since"


def test_no_tick_is_about_trips_where_nobody_has_built_their_tables(city: City) -> None:
    for minutes in (19, 59, 119):
        city.grew(BRONZE, QUARANTINE)
        city.tick(minutes)
    requested = {key.to_user_string() for run in city.runs for key in selected(run)}
    assert any("traffic_features" in name for name in requested)
    assert [name for name in requested if "trip" in name] == []


def test_a_change_that_names_no_day_makes_no_day_be_built_again(city: City) -> None:
    """A champion is trained, a snapshot is built, and a table of an older version is reported without its day."""
    city.grew(BRONZE)
    city.tick(9)
    model = next(key for key in city.repository.asset_graph.get_all_asset_keys() if key.path[0] == "models")
    city.grew(model, keys.table("silver/devices"), BRONZE, QUARANTINE, day=None)
    assert [days_of(run) for run in city.tick(59) if days_of(run)] == [[TODAY]], "quality of today, as every hour"
    city.grew(model, keys.table("silver/devices"), BRONZE, QUARANTINE, day=None)
    assert not any(days_of(run) for minutes in (69, 119) for run in city.tick(minutes))


def test_late_events_are_built_apart_from_today(city: City) -> None:
    city.grew(BRONZE)
    city.grew(BRONZE, day=TODAY - timedelta(days=1))
    newest, older = city.tick(9)
    assert (days_of(newest), days_of(older)) == ([TODAY], [TODAY - timedelta(days=1)])
    assert ONLINE in selected(newest) - selected(older)
    assert int(newest.tags["dagster/priority"]) > 0 > int(older.tags["dagster/priority"])
    assert newest.tags.items() >= TAKES_TURNS.items()
    assert older.tags.keys().isdisjoint(TAKES_TURNS)


def test_after_a_week_off_the_days_between_are_one_range(city: City) -> None:
    city.grew(BRONZE)
    city.tick(9)
    week = 7 * 24 * 60
    for days in range(8):
        city.grew(BRONZE, day=TODAY + timedelta(days=days))
    newest, older = city.tick(week + 59)
    assert days_of(newest) == [TODAY + timedelta(days=7)]
    assert days_of(older) == [TODAY + timedelta(days=n) for n in range(7)]
    assert {SILVER, QUALITY} <= selected(older)
    assert not any(days_of(run) for run in city.tick(week + 69)), "what a range has built, it has built whole"


def test_a_day_without_rows_needs_no_run(city: City) -> None:
    """Over midnight, and in the days that the city was off."""
    city.grew(BRONZE)
    city.tick(9)
    city.tick(59)
    assert [city.tick(minutes) for minutes in (13 * 60 - 1, 24 * 60 - 1, 3 * 24 * 60 - 1)] == [[], [], []]
    city.grew(BRONZE, day=TODAY + timedelta(days=3))
    (run,) = city.tick(3 * 24 * 60 + 59)
    assert days_of(run) == [TODAY + timedelta(days=3)]


def test_days_that_are_not_successive_are_a_range_at_a_tick_the_newest_first(city: City) -> None:
    sparse = [TODAY - timedelta(days=n) for n in (2, 3, 9)]
    for day in sparse:
        city.grew(BRONZE, day=day)
    days = [days_of(run) for minutes in (9, 19, 29, 39) for run in city.tick(minutes) if SILVER in selected(run)]
    assert days == [sorted(sparse[:2]), sparse[2:]]


def test_nothing_piles_up_behind_a_run_that_takes_long_and_nothing_is_lost(city: City) -> None:
    city.builds = False
    city.grew(BRONZE)
    assert len(city.tick(9)) == 1
    city.grew(BRONZE, day=TODAY - timedelta(days=1))
    assert [city.tick(minutes) for minutes in (19, 29, 39)] == [[], [], []]
    for run in city.instance.get_runs():
        city.instance.report_run_canceled(run)
    city.grew(BRONZE)
    assert [days_of(run) for run in city.tick(44)] == [[TODAY], [TODAY - timedelta(days=1)]], "as soon as it has ended"


def test_older_days_of_a_tick_that_was_lost_are_requested_again(city: City) -> None:
    """The daemon was killed after the evaluation, before it stored the cursor and made the run."""
    late = TODAY - timedelta(days=3)
    city.grew(BRONZE, day=late)
    city.grew(BRONZE, day=TODAY - timedelta(days=9))
    assert [days_of(run) for run in city.tick(9) if SILVER in selected(run)] == [[late]]
    cursor, run, city._run = city.cursor, city._run, lambda request: None  # type: ignore[method-assign]
    lost = [days_of(request) for request in city.tick(19) if SILVER in selected(request)]
    city.cursor, city._run = cursor, run  # type: ignore[method-assign]
    assert lost == [[TODAY - timedelta(days=9)]]
    assert [days_of(request) for request in city.tick(21) if SILVER in selected(request)] == lost
    assert not any(days_of(request) for request in city.tick(29))


def definitions_from(first: date, monkeypatch: pytest.MonkeyPatch) -> dg.RepositoryDefinition:
    monkeypatch.setattr(keys, "first_day", lambda *_: first)
    return build().get_repository_def()


def test_a_day_before_the_first_is_built_when_the_definitions_are_loaded_again(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        city = City(instance, definitions_from(TODAY, monkeypatch))
        city.tick(0)
        city.grew(BRONZE)
        city.grew(BRONZE, day=TODAY - timedelta(days=2))
        assert [days_of(run) for run in city.tick(9)] == [[TODAY]]
        city.repository = definitions_from(TODAY - timedelta(days=2), monkeypatch)
        requested = [days_of(run) for run in city.tick(19) if SILVER in selected(run) and run.tags[BUILD] == "older"]
        assert requested == [[TODAY - timedelta(days=2)]]
        assert not any(days_of(run) for run in city.tick(29))


def test_the_days_of_a_history_of_years_ago_are_partitions_that_nothing_requests(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        city = City(instance, definitions_from(date(2013, 1, 1), monkeypatch))
        partitions = city.repository.asset_graph.get(SILVER).partitions_def
        assert partitions is not None
        assert partitions.get_first_partition_key() == "2013-01-01"
        city.tick(0)
        city.grew(BRONZE)
        assert [days_of(run) for run in city.tick(9)] == [[TODAY]]
        assert not any(days_of(run) for run in city.tick(19))


def test_the_first_partition_is_the_first_day_that_bronze_has(config: Settings) -> None:
    keys.reload_days()
    zone = config.timezone
    assert first_day(config.lake, contracts(), zone) is None
    assert keys.live_days().get_first_partition_key() == str(datetime.now(ZONE).date()), "a new city begins today"
    # Three in the morning in UTC is still the day before in New York.
    begin = datetime(2026, 5, 4, 3, tzinfo=UTC)
    stream(config.lake, VEHICLE_POSITIONS, drive(begin, 3), begin + timedelta(hours=3))
    assert first_day(config.lake, contracts(), zone) == date(2026, 5, 3)
    keys.reload_days()
    assert keys.live_days().get_first_partition_key() == "2026-05-03"
    quality = build().resolve_asset_graph().get(QUALITY).partitions_def
    assert quality == keys.live_days()


def test_all_that_follows_a_stream_can_be_built_by_one_run(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    definitions = {
        graph.get(key).partitions_def
        for key in graph.get_all_asset_keys()
        if graph.get(key).automation_condition is not None and graph.get(key).partitions_def is not None
    }
    assert len(definitions) == 1
