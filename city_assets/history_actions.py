"""What the steps of the history do after bronze: each function makes one thing, and can be repeated."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

import requests

from city.contracts.model import Contract
from city.settings import Settings
from city.stack.history_plan import HistoryPlan
from city.tables.model import Table

_REASON = "history"
"""The tag `reason` of the model versions that the history makes."""


def send_to_hot_tier(config: Settings, contract: Contract, before: datetime | None) -> None:
    """Sends to QuestDB what it keeps of a contract's bronze; with `before`, only the events before that time."""
    from city.streaming.sinks.questdb_history import send_history

    try:
        send_history(config, contract, before)
    except requests.ConnectionError:
        raise RuntimeError(f"QuestDB at {config.questdb} is unavailable: start the city with `city up`") from None


def build_days(config: Settings, table: Table, days: Sequence[date]) -> None:
    """Builds whole days of a table, or the whole table where it is not daily."""
    from city.lake.lakehouse import lakehouse

    # A snapshot of its own: the table's sources are what the steps before have just written.
    lakehouse(config).pinned().build(table, days, full=True)


def push_features(config: Settings, names: Sequence[str]) -> None:
    """Writes the newest features of the views of these names to the online store."""
    from city.features.repository import materialize_views

    materialize_views(config, timedelta(days=2), names)


def pin_reference(config: Settings, plan: HistoryPlan, name: str) -> None:
    """Pins the history's rows of a feature view as its drift reference, unless it has one."""
    from city.features.views import view_of
    from city.models.model import ModelError
    from city_assets.monitoring.references import models_by_view, pin, references

    if references(config).get(name) is not None:
        return
    try:
        pin(view_of(name), models_by_view()[name], config.lake, config, plan.days)
    except ModelError as error:  # the view has no rows: its first whole day is pinned
        print(error)


def record_quality(config: Settings, contract: Contract, days: Sequence[date]) -> None:
    """Records the quality of past days of a contract's stream."""
    from city_assets.monitoring.daily_quality import record_past_days

    record_past_days(contract, config.lake, days, config)


def train_first_version(config: Settings, name: str) -> None:
    """Trains the first version of a model, soon: with its default parameters, on its newest rows.

    A later training searches for better parameters, and learns from all rows.
    """
    from city.lake.snapshot import Snapshot
    from city.models.model import ModelError, models
    from city.models.registry import Registry
    from city_assets.training import train_on

    model, registry = models()[name], Registry(config)
    if registry.at(name) is not None or any(v.tags.get("reason") != _REASON for v in registry.versions(name)):
        return  # a version of the history alone may be that of a training that was interrupted before its promotion
    try:
        soon = replace(model, space=None, most_rows=min(model.most_rows, model.first_rows))
        train_on(soon, Snapshot(config.lake), config, registry, tags={"reason": _REASON})
    except ModelError as error:  # too few days for this model: its first training comes with its first labels
        print(error)
