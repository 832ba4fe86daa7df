"""What a new city can judge from its first minute: the usual values of each hour, and the references of drift."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from city.features.views import view_of
from city.models.model import ModelError
from city.models.registry import Registry
from city.settings import Settings
from city.settings import settings as read_settings
from city.stack.history_plan import make_plan
from city.streaming.history import append_day
from city.tables.registry import is_live
from city_assets import history
from city_assets.environment.contract import DEVICES, SENSORS
from city_assets.monitoring.daily_quality import HOURS, SCORES, assess, record_past_days
from city_assets.monitoring.drift import _lacks_inputs, measure
from city_assets.monitoring.references import has_sampled_history, load_newest, models_by_view, pin, references
from simulators.faults import FaultRates
from tests.lakes import stream
from tests.sensors import fleet

ZONE = "America/New_York"
END = datetime(2026, 5, 6, 15, 30, tzinfo=UTC)
DAY = date(2026, 5, 6)
MIDNIGHT = datetime(2026, 5, 6, 4, tzinfo=UTC)
SENSORS_80 = fleet(FaultRates(), 3)[:80]


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A city whose history of two days is made, less the models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CITY_HOME", str(tmp_path_factory.mktemp("city")))
        patch.setenv("CITY_TIMEZONE", ZONE)
        patch.setenv("CITY_COUNTRY", "US")
        patch.setenv("CITY_HISTORY_DAYS", "1")
        read_settings.cache_clear()
        config = read_settings()
        plan = make_plan(config, now=END)
        for step in history.steps(config, plan):
            if not step.name.startswith(("hot tier ", "model ")):
                step.run()
        yield config
    read_settings.cache_clear()


def test_references_and_quality_are_made_after_the_tables_and_before_the_models(config: Settings) -> None:
    plan = make_plan(config.model_copy(update={"history_days": 2}), now=END)
    kinds = [step.name.split()[0] for step in history.steps(config, plan)]
    order = list(dict.fromkeys(kind for kind in kinds if kind not in ("bronze", "hot")))
    assert order == ["table", "online", "drift", "quality", "model"]


def test_each_past_day_has_scores_and_hours(city: Settings) -> None:
    scores, hours = (pl.read_delta(str(city.lake / name)) for name in (SCORES, HOURS))
    datasets = {"payments", "sensor_readings", "sensors", "vehicle_positions"}
    assert set(scores.select("dataset", "day").rows()) == {
        (n, DAY - timedelta(days=d)) for n in datasets for d in (0, 1)
    }
    assert scores["score"].min() > 0.99  # type: ignore[operator]
    volume = set(hours.filter(pl.col("kind") == "all")["dataset"])
    assert volume == {"payments", "sensor_readings"}, "the other sources have fewer events in the history"
    assert hours.filter(pl.col("dataset") == "sensors")["kind"].n_unique() == 10


def test_a_view_has_a_reference_where_its_past_is_like_its_present(
    city: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = [name for name in models_by_view() if is_live(view_of(name).table)]
    pinned = {name for name in live if references(city).get(name) is not None}
    assert pinned == {"payment_features", "machine_features"}
    assert {name for name in live if not has_sampled_history(view_of(name))} == pinned
    for name in pinned:
        view, view_models = view_of(name), models_by_view()[name]
        assert measure(view, view_models, city.lake, city, Registry(city), END) is None, "there is no live day yet"
        with monkeypatch.context() as patch:
            patch.setattr("city_assets.monitoring.drift.load_plan", lambda config: None)
            compared = measure(view, view_models, city.lake, city, Registry(city), END)
        assert compared is not None
        rows, _ = compared
        assert not {"is_weekend", "hour_of_day"} & set(rows["feature"]), "these are known beforehand"
        assert not rows["drifted"].any()


def test_a_sampled_past_is_no_reference_however_long(city: Settings) -> None:
    """Live vehicles report so much more often that the spread of a cell's speeds differs."""
    view, models = view_of("traffic_features"), models_by_view()["traffic_features"]
    assert pl.scan_delta(str(city.lake / view.table.id)).select(pl.len()).collect().item() > 1_000
    assert load_newest(view, models, city.lake, city).is_empty()
    assert measure(view, models, city.lake, city, Registry(city), END) is None
    assert references(city).get(view.name) is None
    with pytest.raises(ModelError, match="no live rows yet"):
        pin(view, models, city.lake, city)


def readings(begin: datetime, steps: int, every: timedelta, louder: float = 1.0) -> list[dict[str, object]]:
    rows = []
    for step in range(steps):
        for second, sensor in enumerate(SENSORS_80):
            reading = sensor.reading(begin + step * every + timedelta(seconds=second))
            rows.append(reading | {"value": reading["value"] * louder} if reading["type"] == "traffic" else reading)
    return rows


def typed(rows: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(rows).with_columns(pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC"))


def failed(config: Settings, louder: float = 1.0) -> set[str]:
    """What is judged unusual on the first day: a history of ten weekdays and eight hours, then two live hours."""
    begin = MIDNIGHT + timedelta(hours=8)
    stream(config.lake, DEVICES, [sensor.announcement(begin) for sensor in SENSORS_80], begin)
    days = [DAY - timedelta(days=n) for n in (8, 7, 6, 5, 2, 1, 0)]
    for day in days:
        past = readings(MIDNIGHT - (DAY - day), 40 if day < DAY else 32, timedelta(minutes=15))
        append_day(config.lake, SENSORS, day, typed(past))
    record_past_days(SENSORS, config.lake, days)
    stream(config.lake, SENSORS, readings(begin, 80, timedelta(minutes=1.5), louder), begin + timedelta(hours=2))
    scores, judged = assess(SENSORS, config.lake, DAY, None, begin + timedelta(hours=2))
    assert scores["missing_share"][0] == 0
    unusual = {result.name: result.detail for result in judged if not result.passed}
    return unusual.keys() - {"slow", "out_of_order"}  # the live rows came as one batch


def test_the_first_day_is_judged_by_the_past_and_its_higher_rate_is_not_unusual(config: Settings) -> None:
    assert failed(config) == set()


def test_unusual_values_are_seen_on_the_first_day(config: Settings) -> None:
    assert failed(config, louder=3.0) == {"values_usual"}


def test_a_reference_without_an_input_that_the_city_knows_now_is_pinned_anew() -> None:
    known = pl.DataFrame({"usual": [1.0, 2.0, None, 4.0], "now": [1.0] * 4})
    unknown = known.with_columns(usual=pl.lit(None, pl.Float64))
    begun = known.with_columns(usual=pl.Series([None, None, None, 4.0]))
    assert _lacks_inputs(unknown, known, ["usual", "now"])
    assert _lacks_inputs(begun, known, ["usual", "now"])
    assert _lacks_inputs(known.drop("usual"), known, ["usual", "now"])
    assert not _lacks_inputs(known, known, ["usual", "now"])
    assert not _lacks_inputs(unknown, unknown, ["usual", "now"]), "nobody knows it"
    assert not _lacks_inputs(known, unknown, ["usual", "now"]), "that is drift"
