"""An online view that is not written while events of its source come is an alarm; one that nothing comes for is not."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from city.alerts.store import alert_store
from city.alerts.watch import PlatformWatch
from city.contracts.registry import contracts
from city.features.freshness import FeatureFreshness, freshness_bound
from city.features.online import OnlineStore, RedisStore, online_store
from city.features.views import view_of
from city.settings import Settings
from city_assets.traffic.contract import VEHICLE_POSITIONS

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
VIEW = "traffic_features"
STALE, AGE = f"model.features_stale.{VIEW}", f"model.feature_age_s.{VIEW}"
BOUND = 14


class Minutes:
    """A city of which each minute is a look; it says what rules are told of the view."""

    def __init__(self, config: Settings, store: OnlineStore | None = None) -> None:
        self._config, self.now, self.rows = config, NOW, 0
        self.store = store or online_store(config)
        self.freshness = FeatureFreshness(config, self.store)
        config.run.mkdir(parents=True, exist_ok=True)

    def pass_one(self, events: int = 0, written: bool = False) -> float | None:
        self.now += timedelta(minutes=1)
        self.rows += events
        entry = {"topic": VEHICLE_POSITIONS.topic, "rows": self.rows, "lag": 0, "p95_ms": 1.0}
        entry |= {"events_per_second": 1.0, "quarantined": 0}
        report = {"at": self.now.timestamp(), "ended": False, "failure": None, "streams": [entry]}
        (self._config.run / "stream.json").write_text(json.dumps(report))
        if written:
            self.store.write(VIEW, ["cell"], [int(self.now.timestamp() * 1e6)], [b"{}"])
        self.metrics = self.freshness.metrics(self.now.timestamp())
        return self.metrics[STALE]


def test_a_sink_that_stands_still_while_events_come_is_an_alarm_until_it_goes_on(config: Settings) -> None:
    city, kept = Minutes(config), alert_store(config)
    watch = PlatformWatch(config, kept, own=lambda: city.metrics, began=NOW - timedelta(hours=1))

    def active(*minute: int, written: bool = False) -> list[tuple[str, str]]:
        city.pass_one(*minute, written=written)
        watch.look(city.now)
        return [(a.cause, a.severity) for a in kept.alarms() if a.active and a.cause.startswith("rule/")]

    for _ in range(30):
        assert active(50, written=True) == []
    looks = [active(50) for _ in range(BOUND + 5)]
    cause = (f"rule/features_stale/{STALE}", "error")
    assert looks == [[]] * BOUND + [[cause]] * 5
    assert city.metrics[AGE] == 60 * (BOUND + 5)
    assert active(0) == [cause], "for a minute nothing came"
    assert active(50, written=True) == []


@pytest.mark.parametrize("minutes", [2 * BOUND, 600])
def test_what_nothing_comes_for_is_not_stale(config: Settings, minutes: int) -> None:
    city = Minutes(config)
    for _ in range(5):
        assert city.pass_one(50, written=True) == 0
    quiet = [city.pass_one() for _ in range(minutes)]
    assert set(quiet[:BOUND]) == {0.0}
    assert set(quiet[BOUND:]) == {None}
    assert city.pass_one(50) is None, "the first event came just now"
    assert city.pass_one(50, written=True) == 0


def test_events_that_come_seldom_count_too(config: Settings) -> None:
    city = Minutes(config)
    city.pass_one(1, written=True)
    seldom = [city.pass_one(int(minute % 10 == 0)) for minute in range(60)]
    assert 1.0 in seldom
    assert set(seldom[:BOUND]) == {0.0}


def test_a_stream_that_begins_anew_has_brought_no_event_by_that(config: Settings) -> None:
    city = Minutes(config)
    city.pass_one(50, written=True)
    for _ in range(3 * BOUND):
        city.rows = 0
        findings = city.pass_one()
    assert findings is None


def test_a_view_that_was_never_written_is_stale_once_its_bound_is_over(config: Settings) -> None:
    city = Minutes(config)
    assert [city.pass_one(50) for _ in range(BOUND + 3)] == [None] * (BOUND + 1) + [1.0] * 2
    assert AGE not in city.metrics


def test_of_a_store_that_is_away_nothing_is_known(config: Settings, caplog: pytest.LogCaptureFixture) -> None:
    city = Minutes(config, RedisStore("redis://127.0.0.1:1"))
    assert [city.pass_one(50) for _ in range(2 * BOUND)] == [None] * 2 * BOUND
    assert city.freshness.ages() == {}
    assert caplog.text.count("cannot be read from the online store") == 1


@pytest.mark.parametrize(
    ("view", "source", "bound"),
    [
        ("traffic_features", "vehicle_positions", timedelta(minutes=BOUND)),
        ("weather_features", "sensors", timedelta(minutes=20)),
        ("machine_features", "sensor_readings", timedelta(minutes=10)),
        ("payment_features", "payments", timedelta(minutes=10)),
        ("vehicle_features", "vehicle_positions", timedelta(days=1)),
    ],
)
def test_a_bound_follows_from_the_contract_or_the_time_to_live(view: str, source: str, bound: timedelta) -> None:
    assert freshness_bound(view_of(view), [c for c in contracts() if c.name == source]) == bound


def test_every_view_is_followed(config: Settings) -> None:
    names = {name.rpartition(".")[2] for name in FeatureFreshness(config).metrics()}
    assert names == {f"{of}_features" for of in ("traffic", "vehicle", "weather", "sensor", "machine", "payment")}
