"""Makes the history of a new city: past events in bronze, then all tables of those days, then
the references of drift and the quality of each day, then a champion of each model.

It is made for the active domains of the plan. What a table reads from other domains is what the lake has of them.

Each step can be interrupted and repeated. A day of a contract is in bronze once, a table is replaced, and a model that
has a champion is left alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from city import local_time
from city.contracts.registry import Domain, domains
from city.file_lock import file_lock
from city.settings import Settings
from city.stack import history_plan
from city.stack.history_plan import HistoryPlan
from city.stack.history_progress import HistoryProgress
from city.streaming.history import append_day
from city_assets import history_actions

if TYPE_CHECKING:
    from city.models.model import Model

_BLOCK_DAYS = 5
"""The days of bronze that a simulator makes at a time, and the days of a table that are built at a time."""
_MODELS = "models"
_RECENT = timedelta(days=1)
"""The newest part of the history, which is made first: what the stream's features look back at."""


@dataclass(frozen=True)
class Step:
    """A step of the history. `name` identifies it in the record of what is done, `weight` is about its seconds.

    `asset` is the asset that the step makes (`layer/name`), of the `days` or as a whole where it has no days. It is
    None for the steps of bronze, which records its days itself, and for what is no asset.
    """

    name: str
    weight: float
    run: Callable[[], None]
    asset: str | None = None
    days: Sequence[date] = ()


class AlreadyRunning(ValueError):
    """Reports that another process makes the history."""


def is_finished(config: Settings) -> bool:
    """Returns whether the history of every active domain is made that gets one."""
    return history_plan.is_finished(config)


def simulated(config: Settings) -> list[Domain]:
    """Lists the active domains whose simulator can make history."""
    active = (domain for domain in domains(config) if config.is_active(domain.name))
    return [domain for domain in active if hasattr(domain.simulator(), "history")]


def steps(config: Settings, plan: HistoryPlan) -> list[Step]:
    """Lists the steps that make the history of a plan, in order. The first ones make its newest part."""
    # The days are those of the plan's time zone, also where CITY_TIMEZONE has changed since.
    config = config.model_copy(update={"timezone": plan.timezone})
    sources = _sources(config, plan)
    listed = [
        Step(
            f"bronze {domain.name} {begin:%Y-%m-%d}",
            1.0 if is_recent else 2.5,
            partial(_append, config, plan, domain, begin, end),
        )
        for begin, end, is_recent in _blocks(plan)
        for domain in sources
    ]
    recent = len(sources)
    return [
        *listed[:recent],
        *_hot_steps(config, sources),
        *listed[recent:],
        *_hot_steps(config, sources, before=next(_blocks(plan))[0]),
        *_table_steps(config, plan),
        *_online_steps(config, plan),
        *_reference_steps(config, plan),
        *_quality_steps(config, plan, sources),
        *_model_steps(config, plan),
    ]


def done_steps(config: Settings, plan: HistoryPlan) -> list[Step]:
    """Lists the steps that are done. No step is listed before all tables are made, and no model before all is made."""
    all_steps, done = steps(config, plan), set(history_plan.load_done(config))
    is_all_made = is_finished(config)
    listed = all_steps if is_all_made else [step for step in all_steps if not is_training(step)]
    made = [step for step in listed if step.name in done]
    return made if is_all_made or len(made) == len(listed) else []


def is_training(step: Step) -> bool:
    """Returns whether the step trains a model."""
    return step.asset is not None and step.asset.startswith(f"{_MODELS}/")


def is_recent(step: Step, plan: HistoryPlan) -> bool:
    """Returns whether the step makes the newest part of bronze."""
    first = next(_blocks(plan))[0]
    return step.name.startswith("bronze ") and step.name.endswith(f"{first:%Y-%m-%d}")


def run(config: Settings, plan: HistoryPlan, progress: Callable[[list[Step], int], None]) -> None:
    """Makes what is missing of the history. Calls `progress` with all steps and the number of the done ones.

    Raises the error of a step. What was done before it stays, and the next call continues. Raises AlreadyRunning while
    another process makes the history.
    """
    folder = config.home / history_plan.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "run", _refuse):
        all_steps, done = steps(config, plan), set(history_plan.load_done(config))
        for number, step in enumerate(all_steps):
            if step.name not in done:
                progress(all_steps, number)
                step.run()
                history_plan.record_done(config, step.name)
        history_plan.finish(config, plan)
        progress(all_steps, len(all_steps))


def _refuse(process: str) -> None:
    raise AlreadyRunning(f"another process ({process}) makes the history already: `city history status` shows how far")


def _sources(config: Settings, plan: HistoryPlan) -> list[Domain]:
    """Lists the domains of the plan whose simulator makes their history."""
    return [domain for domain in simulated(config) if plan.has(domain.name)]


def _covered(config: Settings, plan: HistoryPlan) -> list[Domain]:
    """Lists the active domains whose tables and models are made: those of the plan, and those without a simulator.

    The latter can derive tables from the others.
    """
    active = (domain for domain in domains(config) if config.is_active(domain.name))
    return [domain for domain in active if plan.has(domain.name) or not domain.has_simulator]


def _blocks(plan: HistoryPlan) -> Iterator[tuple[datetime, datetime, bool]]:
    """Yields the spans in which bronze is made, each with whether it is the newest. The newest is the first."""
    days = plan.local_days
    begins = [local_time.bounds(day, plan.timezone)[0] for day in days]
    recent = max(begin for begin in begins if begin <= max(plan.end - _RECENT, begins[0]))
    yield recent, plan.end, True
    older = [begin for begin in begins if begin < recent]
    for first in range(0, len(older), _BLOCK_DAYS):
        following = older[first + _BLOCK_DAYS] if first + _BLOCK_DAYS < len(older) else recent
        yield older[first], following, False


def _append(config: Settings, plan: HistoryPlan, domain: Domain, begin: datetime, end: datetime) -> None:
    module = domain.simulator()
    assert module is not None
    for chunk in module.history(config, plan.seed, plan.begin, begin, end):
        append_day(config.lake, chunk.contract, chunk.day, chunk.rows)
        del chunk  # or a second day is in memory while the next one is made


def _hot_steps(config: Settings, sources: Sequence[Domain], before: datetime | None = None) -> list[Step]:
    """Lists the steps that send to QuestDB what bronze has, which the charts of the last days show.

    With `before` they send the events before that time only: those that steps without it have not sent yet.
    """
    suffix = f" before {before:%Y-%m-%d}" if before else ""
    return [
        Step(
            f"hot tier {contract.name}{suffix}",
            1.5,
            partial(history_actions.send_to_hot_tier, config, contract, before),
        )
        for domain in sources
        for contract in domain.contracts
        if contract.rate == "high"  # the others have no tables there
    ]


def _table_steps(config: Settings, plan: HistoryPlan) -> list[Step]:
    from city.tables.registry import is_live, select_tables, tables_of

    live = {table.id for domain in _covered(config, plan) for table in tables_of(domain) if is_live(table)}
    listed = []
    for table in (table for table in select_tables(sorted(live)) if table.id in live):
        for days in blocks(plan.local_days) if table.daily else [[]]:
            name = f"table {table.id}" + (f" {days[0]}" if days else "")
            listed.append(
                Step(
                    name, 1.0 if days else 0.3, partial(history_actions.build_days, config, table, days), table.id, days
                )
            )
    return listed


def _online_steps(config: Settings, plan: HistoryPlan) -> list[Step]:
    """Lists the steps that send the newest features of each domain to the online store."""
    from city.features.views import views
    from city.tables.registry import tables_of

    listed = []
    for domain in _covered(config, plan):
        ids = {table.id for table in tables_of(domain)}
        if names := [name for name, view in views().items() if view.table.id in ids]:
            push = partial(history_actions.push_features, config, names)
            listed.append(Step(f"online features {domain.name}", 0.3, push, "features/online"))
    return listed


def _reference_steps(config: Settings, plan: HistoryPlan) -> list[Step]:
    """Lists the steps that pin the history's rows of feature views, which later days are compared with.

    A view of a source whose history has fewer events gets its reference from the first live day.
    """
    from city_assets.monitoring.references import has_sampled_history

    used = {model.view.name: model.view for model in _live_models(config, plan)}
    names = [name for name, view in used.items() if not has_sampled_history(view)]
    return [
        Step(f"drift reference {name}", 0.5, partial(history_actions.pin_reference, config, plan, name))
        for name in names
    ]


def _quality_steps(config: Settings, plan: HistoryPlan, sources: Sequence[Domain]) -> list[Step]:
    """Lists the steps that record the quality of the past days, from which the seasonal bands are computed."""
    measured = [contract for domain in sources for contract in domain.contracts if contract.rate == "high"]
    return [
        Step(
            f"quality {contract.name}",
            3.0,
            partial(history_actions.record_quality, config, contract, plan.local_days),
            f"monitoring/{contract.name}_quality",
            plan.local_days,
        )
        for contract in measured
    ]


def _model_steps(config: Settings, plan: HistoryPlan) -> list[Step]:
    return [
        Step(
            f"model {model.name}",
            9.0,
            partial(history_actions.train_first_version, config, model.name),
            f"{_MODELS}/{model.name}",
        )
        for model in _live_models(config, plan)
    ]


def _live_models(config: Settings, plan: HistoryPlan) -> list["Model"]:
    """Lists the models of the covered domains whose views derive from a stream, which the history has rows for."""
    from city.models.model import models_of
    from city.tables.registry import is_live

    declared = [model for domain in _covered(config, plan) for model in models_of(domain)]
    return [model for model in declared if is_live(model.view.table)]


def blocks(days: Sequence[date]) -> list[Sequence[date]]:
    """Splits days into the blocks that are built at a time."""
    return [days[first : first + _BLOCK_DAYS] for first in range(0, len(days), _BLOCK_DAYS)]


def describe(all_steps: Sequence[Step], done: int, plan: HistoryPlan) -> HistoryProgress:
    """Returns the progress when so many of the steps are done."""
    weight = sum(step.weight for step in all_steps)
    percent = int(100 * sum(step.weight for step in all_steps[:done]) / weight) if weight else 100
    is_finished = done == len(all_steps)
    return HistoryProgress(
        100 if is_finished else min(percent, 99),
        "finished" if is_finished else all_steps[done].name,
        plan.days,
        is_recent_made=not any(is_recent(step, plan) for step in all_steps[done:]),
        is_finished=is_finished,
    )
