"""Which cities get a history, and when its plan is made."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from city.settings import Settings
from city.stack import history_plan
from city.stack.history_plan import (
    FINISHED,
    RECORD,
    HistoryPlan,
    NoHistory,
    is_finished,
    load_done,
    load_plan,
    make_plan,
    why_no_history,
)
from city.stack.specs import specs

END = datetime(2026, 5, 6, 6, tzinfo=UTC)
LATER = END + timedelta(days=3)


@pytest.fixture
def city(config: Settings) -> Settings:
    return config.model_copy(update={"timezone": "America/New_York", "history_days": 1})


def has_part(config: Settings) -> bool:
    return "history" in [spec.name for spec in specs(config)]


def test_a_plan_is_fixed_once_a_step_is_done(city: Settings) -> None:
    assert load_plan(city) is None
    plan = make_plan(city, END)
    assert plan == HistoryPlan(END, 1, "America/New_York", domains=("environment", "equipment", "payments", "traffic"))
    assert [str(day) for day in plan.local_days] == ["2026-05-05", "2026-05-06"]
    (city.home / RECORD).write_text('["bronze traffic 2026-05-05"]')
    later = city.model_copy(update={"history_days": 9, "timezone": "Asia/Tokyo"})
    assert make_plan(later, LATER) == plan == load_plan(later)


def test_a_start_that_was_interrupted_before_any_step_is_planned_again(city: Settings) -> None:
    make_plan(city, END)
    assert make_plan(city, LATER).end == LATER == load_plan(city).end  # type: ignore[union-attr]
    assert make_plan(city, LATER + timedelta(seconds=20)).end == LATER, "a restart of the part in the same start"
    for change in ({"history_days": 2}, {"timezone": "Asia/Tokyo"}):
        again = make_plan(city.model_copy(update=change), LATER + timedelta(seconds=20))
        assert again.end == LATER + timedelta(seconds=20), "of other days"
        make_plan(city, LATER)
    pl.DataFrame({"vehicle_id": ["v"]}).write_delta(str(city.lake / "bronze" / "vehicle_positions"))
    assert make_plan(city, LATER + timedelta(days=1)).end == LATER, "bronze has a part of the step"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"history_days": 0}, "no history is wanted: CITY_HISTORY_DAYS is 0"),
        ({"kafka_address": "kafka:9092"}, "this city has servers of its own"),
        ({"questdb_address": "questdb:9000"}, "this city has servers of its own"),
    ],
)
def test_the_part_and_the_plan_have_one_rule(city: Settings, change: dict[str, object], reason: str) -> None:
    assert has_part(city)
    other = city.model_copy(update=change)
    with pytest.raises(NoHistory, match=reason):
        make_plan(other)
    assert not has_part(other)
    assert not (city.home / "history").exists(), "nothing is stored"


def test_a_city_with_events_of_its_own_gets_no_history(city: Settings) -> None:
    (city.lake / "bronze").mkdir(parents=True)
    with pytest.raises(NoHistory, match="has events of its own since .*bronze exists, so it gets no history"):
        make_plan(city)
    assert not has_part(city)


def test_no_days_turn_the_history_off_until_they_are_set_again(city: Settings) -> None:
    plan = make_plan(city, END)
    (city.home / RECORD).write_text('["bronze traffic 2026-05-05"]')
    (city.lake / "bronze").mkdir(parents=True)
    off = city.model_copy(update={"history_days": 0})
    assert why_no_history(off) is not None
    assert not has_part(off)
    assert has_part(city)
    assert make_plan(city, LATER) == plan


def test_the_part_is_there_until_the_history_of_each_active_domain_is_made(city: Settings) -> None:
    traffic = city.model_copy(update={"domains": ["traffic"]})
    history_plan.finish(traffic, make_plan(traffic, END))
    assert not has_part(traffic)
    assert has_part(city)
    history_plan.finish(city, make_plan(city, END))
    assert not has_part(city)


def test_a_plan_without_days_of_an_older_release_is_none(city: Settings) -> None:
    make_plan(city, END)
    (city.home / "history" / "plan.json").write_text(
        '{"end": "2026-05-06T06:00:00+00:00", "days": 0, "timezone": "America/New_York", "seed": 0}'
    )
    assert load_plan(city) is None


def test_a_damaged_plan_is_named_and_a_damaged_record_is_made_again(city: Settings) -> None:
    make_plan(city, END)
    (city.home / RECORD).write_text("garbage")
    assert load_done(city) == []
    (city.home / "history" / "plan.json").write_text("garbage")
    with pytest.raises(RuntimeError, match=r"history/plan\.json is damaged: .* point CITY_HOME at an empty folder"):
        load_plan(city)
    for wrong in ("null", "[]", '{"days": 14}', '{"days": 1, "end": "x", "timezone": "UTC", "seed": 0}'):
        (city.home / "history" / "plan.json").write_text(wrong)
        with pytest.raises(RuntimeError, match=r"history/plan\.json is damaged"):
            load_plan(city)
    (city.home / FINISHED).write_text('["traf')
    with pytest.raises(RuntimeError, match=r"history/finished is damaged: delete it, and the next start makes what"):
        is_finished(city.model_copy(update={"history_days": 1}))
