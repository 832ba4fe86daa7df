"""The history of a city with some of the domains, and of domains that become active later."""

import fcntl
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from city.models.model import ModelError
from city.settings import Settings
from city.stack.history_plan import FINISHED, HistoryPlan, make_plan
from city.tables.neighbours import neighbours
from city_assets import history, history_actions, training
from city_assets.payments.contract import PAYMENTS
from city_assets.payments.models import FRAUDS
from city_assets.recorded_history import Recording, check_days
from city_assets.traffic.contract import VEHICLE_POSITIONS

END = datetime(2026, 5, 6, 6, tzinfo=UTC)
ZONE = "America/New_York"
DOMAINS = ("environment", "equipment", "payments", "traffic")


def settings_of(config: Settings, *domains: str) -> Settings:
    update = {"timezone": ZONE, "country": "US", "history_days": 1, "domains": list(domains)}
    return config.model_copy(update=update)


def no_steps(monkeypatch: pytest.MonkeyPatch, names: list[str] | None = None) -> None:
    steps = [history.Step(name, 1.0, lambda: None) for name in names or ["bronze traffic 2026-05-05"]]
    monkeypatch.setattr(history, "steps", lambda *_: steps)


@pytest.mark.parametrize("domain", DOMAINS)
def test_each_domain_alone_gets_its_history(config: Settings, monkeypatch: pytest.MonkeyPatch, domain: str) -> None:
    trained = list[str]()

    def train(model: object, *_: object, **__: object) -> None:
        trained.append(model.name)  # type: ignore[attr-defined]
        raise ModelError("too few rows")

    monkeypatch.setattr(training, "train_on", train)
    monkeypatch.setattr(history_actions, "send_to_hot_tier", lambda *_: None)
    config = settings_of(config, domain)
    plan = make_plan(config, END)
    history.run(config, plan, lambda *_: None)
    assert history.is_finished(config)
    bronze = {path.name for path in (config.lake / "bronze").iterdir() if not path.name.startswith(".")}
    (active,) = history.simulated(config)
    assert bronze == {contract.name for contract in active.contracts}
    assert trained == [step.name.split()[1] for step in history.steps(config, plan) if history.is_training(step)]
    views = {path.name for path in (config.lake / "features").iterdir() if not path.name.startswith(".")}
    assert all(pl.read_delta(str(config.lake / "features" / view)).height for view in views)
    assert ("traffic_features" in views) == (domain == "traffic")


def test_a_city_without_cells_has_no_neighbours() -> None:
    pairs = neighbours(pl.Series("cell", [], dtype=pl.String))
    assert pairs.schema == {"cell": pl.String, "neighbour": pl.String}
    assert pairs.is_empty()


def test_a_domain_that_becomes_active_later_gets_its_history(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    no_steps(monkeypatch)
    traffic, every = settings_of(config, "traffic"), settings_of(config)
    history.run(traffic, make_plan(traffic, END), lambda *_: None)
    assert json.loads((config.home / FINISHED).read_text()) == ["traffic"]
    assert history.is_finished(traffic)
    assert not history.is_finished(every)
    plan = make_plan(every, END + timedelta(days=3))
    assert plan == HistoryPlan(END, 1, ZONE, domains=DOMAINS)
    history.run(every, plan, lambda *_: None)
    assert history.is_finished(every)


def test_a_domain_with_events_of_its_own_keeps_these_as_its_history(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic, both = settings_of(config, "traffic"), settings_of(config, "payments", "traffic")
    plan = make_plan(traffic, END)
    with pytest.MonkeyPatch.context() as patch:
        no_steps(patch)
        history.run(traffic, plan, lambda *_: None)
    pl.DataFrame({"payment_id": ["p"]}).write_delta(str(config.lake / "bronze" / PAYMENTS.name))
    assert history.is_finished(both)
    plan = make_plan(both, END)
    assert plan.domains == ("traffic",)
    assert not any("payments" in step.name for step in history.steps(both, plan))


def test_an_interrupted_history_of_all_is_not_finished_by_that_of_one(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_steps(monkeypatch)
    traffic, every = settings_of(config, "traffic"), settings_of(config)
    make_plan(every, END)
    (config.home / "history" / "done.json").write_text('["bronze payments 2026-05-05"]')
    history.run(traffic, make_plan(traffic, END), lambda *_: None)
    pl.DataFrame({"payment_id": ["p"]}).write_delta(str(config.lake / "bronze" / PAYMENTS.name))
    assert history.is_finished(traffic)
    assert not history.is_finished(every), "these rows are of its history"


def test_recorded_events_may_have_the_days_of_a_plan_without_their_domain(config: Settings) -> None:
    recording = Recording("trips", VEHICLE_POSITIONS, [END.date()], lambda _: pl.DataFrame())
    config = settings_of(config, "payments")
    make_plan(config, END)
    check_days(config, recording)
    make_plan(settings_of(config, "payments", "traffic"), END + timedelta(days=1))
    with pytest.raises(ValueError, match="2026-05-06 has events of another source"):
        check_days(config, recording)


def test_two_processes_do_not_make_the_history_at_once(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    no_steps(monkeypatch)
    config = settings_of(config)
    plan = make_plan(config, END)
    with (config.home / "history" / ".run.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        with pytest.raises(history.AlreadyRunning, match=r"another process \(4711\) makes the history already"):
            history.run(config, plan, lambda *_: None)
    history.run(config, plan, lambda *_: None)


def test_a_change_of_the_time_zone_does_not_change_the_days(config: Settings, tmp_path: Path) -> None:
    """The days in bronze, and the hours of the quality."""
    config = settings_of(config, "payments").model_copy(update={"timezone": "Asia/Tokyo"})
    plan = HistoryPlan(END, 1, ZONE)
    for step in history.steps(config, plan):
        if step.name.startswith(("bronze ", "quality ", "table silver/payments")):
            step.run()
    times = pl.read_delta(str(config.lake / "bronze" / PAYMENTS.name))["timestamp"]
    assert plan.begin <= times.min() < plan.begin + timedelta(minutes=5)  # type: ignore[operator]
    silver = pl.read_delta(str(config.lake / "silver" / PAYMENTS.name))
    assert (silver["day"] == silver["timestamp"].dt.convert_time_zone(ZONE).dt.date()).all()
    hours = pl.read_delta(str(config.lake / "monitoring" / "hours")).filter(day=plan.local_days[0], kind="all")
    assert set(hours["local_hour"]) == set(range(24))
    scores = pl.read_delta(str(config.lake / "monitoring" / "quality")).sort("day")
    of_day = silver.group_by("day").len().sort("day")
    assert scores["rows"].to_list() == of_day["len"].to_list()


@pytest.mark.parametrize(
    ("champion", "reasons", "is_trained"),
    [
        (None, [], True),
        (None, ["history"], True),
        (None, ["history", "every night"], False),
        ("version", ["history"], False),
    ],
)
def test_a_model_without_a_champion_is_trained_again_after_an_interruption(
    config: Settings, monkeypatch: pytest.MonkeyPatch, champion: str | None, reasons: list[str], is_trained: bool
) -> None:
    """The interruption came after the version was registered, and before it was promoted."""
    from city.models.registry import Registry

    calls = list[object]()
    monkeypatch.setattr(Registry, "at", lambda *_: champion)
    monkeypatch.setattr(Registry, "versions", lambda *_: [SimpleNamespace(tags={"reason": name}) for name in reasons])
    monkeypatch.setattr(training, "train_on", lambda *_, **__: calls.append(1))
    history_actions.train_first_version(config, FRAUDS.name)
    assert bool(calls) == is_trained
