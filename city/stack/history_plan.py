"""Plans the history of a city: which days it has, of which domains. Records what of the plan is done.

The plan outlives an interruption, so nothing is made twice.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from city import local_time
from city.contracts.registry import Domain, domains
from city.file_lock import file_lock
from city.lake import bronze_path
from city.settings import Settings

FOLDER = "history"
"""The folder in CITY_HOME with what is known of the history while it is made."""
_PLAN = f"{FOLDER}/plan.json"
RECORD = f"{FOLDER}/done.json"
"""The file in CITY_HOME with the steps that are done."""
FINISHED = f"{FOLDER}/finished"
"""The file in CITY_HOME with the names of the domains whose history is made. Without content, it stands for all."""
_FRESH = timedelta(minutes=1)
"""The age up to which a plan is of the present start, whose live events come after its end."""


class NoHistory(ValueError):
    """Reports that a city gets no history. The message says why."""


@dataclass(frozen=True)
class HistoryPlan:
    """The span of the history. `end` is the moment at which the city began; live events come after it.

    `seed` is that of the simulators. `domains` are the names of the simulated domains that get the history; None stands
    for all.
    """

    end: datetime
    days: int
    timezone: str
    seed: int = 0
    domains: tuple[str, ...] | None = None

    @property
    def local_days(self) -> list[date]:
        """The local days of the history, the oldest first. The last one ends with `end`."""
        last = local_time.local_day(self.end, self.timezone)
        return [last - timedelta(days=n) for n in range(self.days, -1, -1)]

    @property
    def begin(self) -> datetime:
        """The beginning of the first local day."""
        return local_time.bounds(self.local_days[0], self.timezone)[0]

    def has(self, domain: str) -> bool:
        """Returns whether the domain gets the history."""
        return self.domains is None or domain in self.domains


def load_plan(config: Settings) -> HistoryPlan | None:
    """Reads the plan, or returns None for a city that has none: it gets no history, or was never started."""
    path = config.home / _PLAN
    try:
        stored = json.loads(path.read_text()) if path.exists() else {}
        if not stored.get("days"):  # an older release stored a plan without days for a city that gets no history
            return None
        names = stored.get("domains")
        return HistoryPlan(
            datetime.fromisoformat(stored["end"]),
            stored["days"],
            stored["timezone"],
            stored["seed"],
            None if names is None else tuple(names),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RuntimeError(
            f"{path} is damaged: {error}. It says which days the history has. Restore it from a backup, or point "
            "CITY_HOME at an empty folder"
        ) from error


def make_plan(config: Settings, now: datetime | None = None) -> HistoryPlan:
    """Returns the plan of a city, and makes it where there is none.

    The plan is fixed when a step is done or bronze has events. A later CITY_HISTORY_DAYS does not change its days, and
    0 turns the history off until it is set again. A domain that becomes active later joins the plan, unless it has
    events of its own. A plan of a start that was interrupted before all that is made again, with the present moment.

    Raises NoHistory where the city gets no history, and stores nothing then.
    """
    if reason := why_no_history(config):
        raise NoHistory(reason)
    path = config.home / _PLAN
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path):
        plan, moment = load_plan(config), (now or datetime.now(UTC)).replace(microsecond=0)
        if plan is not None and _is_fixed(config, plan, moment):
            if plan.domains is not None:
                joining = {domain.name for domain in _domains_to_make(config, plan)}
                plan = replace(plan, domains=tuple(sorted(joining | set(plan.domains))))
        else:
            names = tuple(domain.name for domain in _active_simulated(config))
            plan = HistoryPlan(moment, config.history_days, config.timezone, domains=names)
        replace_text(path, json.dumps(asdict(plan) | {"end": plan.end.isoformat()}))
        return plan


def why_no_history(config: Settings) -> str | None:
    """Returns why the city gets no history, as a text, or None if it gets one or has one."""
    if not config.history_days:
        return "no history is wanted: CITY_HISTORY_DAYS is 0"
    if config.kafka_address is not None or config.questdb_address is not None:
        return (
            "this city has servers of its own (CITY_KAFKA_ADDRESS, CITY_QUESTDB_ADDRESS), which may have events, so it "
            "gets no history"
        )
    bronze = config.lake / "bronze"
    if load_plan(config) is None and bronze.exists():
        return f"this city has events of its own since {bronze} exists, so it gets no history"
    return None


def is_finished(config: Settings) -> bool:
    """Returns whether the history of every active domain is made that gets one."""
    finished, plan = _load_finished(config), load_plan(config)
    return finished is None or all(domain.name in finished for domain in _domains_to_make(config, plan))


def unfinished(config: Settings, plan: HistoryPlan) -> list[str]:
    """Lists the active domains in the plan whose history is not made. It reads no table, for callers that poll."""
    finished = _load_finished(config)
    if finished is None:
        return []
    planned = (domain.name for domain in _active_simulated(config) if plan.has(domain.name))
    return [name for name in planned if name not in finished]


def finish(config: Settings, plan: HistoryPlan) -> None:
    """Records that the history of the active domains in the plan is made."""
    finished = _load_finished(config)
    if finished is not None:
        replace_text(config.home / FINISHED, json.dumps(sorted({*finished, *unfinished(config, plan)})))


def load_done(config: Settings) -> list[str]:
    """Reads the names of the steps that are done. A damaged record counts as empty: each step can be repeated."""
    path = config.home / RECORD
    try:
        return list(json.loads(path.read_text())) if path.exists() else []
    except ValueError:
        return []


def record_done(config: Settings, step: str) -> None:
    """Records that a step is done."""
    replace_text(config.home / RECORD, json.dumps([*load_done(config), step]))


def _active_simulated(config: Settings) -> list[Domain]:
    return [domain for domain in domains(config) if config.is_active(domain.name) and domain.has_simulator]


def _domains_to_make(config: Settings, plan: HistoryPlan | None) -> list[Domain]:
    """Lists the active domains that get the history: those in the plan, and those that have no events yet."""
    active = _active_simulated(config)
    return [d for d in active if (plan is not None and plan.has(d.name)) or not _has_events(config, d)]


def _is_fixed(config: Settings, plan: HistoryPlan, now: datetime) -> bool:
    is_same = (plan.days, plan.timezone) == (config.history_days, config.timezone)
    if (is_same and now - plan.end < _FRESH) or (config.home / RECORD).exists():
        return True
    return any(_has_events(config, domain) for domain in domains(config) if plan.has(domain.name))


def _has_events(config: Settings, domain: Domain) -> bool:
    """Returns whether bronze has rows of a contract of the domain."""
    from deltalake import DeltaTable

    paths = [str(bronze_path(config.lake, contract)) for contract in domain.contracts]
    return any(DeltaTable(path).count() for path in paths if DeltaTable.is_deltatable(path))


def _load_finished(config: Settings) -> list[str] | None:
    """Reads the names of the domains whose history is made. None stands for all: an older release wrote no names."""
    path = config.home / FINISHED
    text = path.read_text() if path.exists() else "[]"
    try:
        return list(json.loads(text)) if text else None
    except (ValueError, TypeError):
        raise RuntimeError(
            f"{path} is damaged: delete it, and the next start makes what is missing of the history"
        ) from None


def replace_text(path: Path, content: str) -> None:
    """Replaces a file at once, so that a reader or a kill meets the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".new")
    written.write_text(content)
    written.replace(path)
