"""The pinned reference days of the feature views that models use. It does without Dagster, for the history."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from city.contracts.model import Contract
from city.contracts.registry import contracts, domain_with
from city.drift.reference import SPAN, References
from city.features.views import View
from city.lake.snapshot import Snapshot
from city.models.history import view_table
from city.models.model import Model, ModelError, models
from city.settings import Settings
from city.stack.history_plan import load_plan
from city.tables.registry import tables
from city.tables.schema import schema
from city.tables.slices import HOUR, count_parts

MOST_ROWS = 100_000
"""About so many rows are loaded and pinned at most. A comparison samples a few thousand of them."""
_LOOK_BACK = timedelta(hours=1)
"""The features of the first live hour still derive from the history."""


def references(config: Settings) -> References:
    """Returns the store of the pinned reference days, which is under CITY_HOME."""
    return References(config.home / "drift" / "reference")


def models_by_view() -> dict[str, list[Model]]:
    """Returns the models by the name of the feature view that they use."""
    models_by_view: dict[str, list[Model]] = {}
    for model in models().values():
        models_by_view.setdefault(model.features, []).append(model)
    return models_by_view


def pin(view: View, view_models: list[Model], lake: Path, config: Settings, days: int = 1) -> int:
    """Makes the view's newest days the reference. Returns its row count, which is about MOST_ROWS at most.

    More days make a reference that has weekends, and machines in all states: a later day drifts less by chance.

    Raises ModelError if the view has not been built, or has only rows of the history that live rows differ from.
    """
    rows = load_newest(view, view_models, lake, config, days)
    if rows.is_empty() and has_sampled_history(view):
        raise ModelError(f"view {view.name!r} has no live rows yet: the history of its sources has fewer events")
    references(config).update_reference(view.name, rows)
    return rows.height


def load_newest(view: View, view_models: list[Model], lake: Path, config: Settings, days: int = 1) -> pl.DataFrame:
    """Loads the rows of the last `days` times 24 hours up to the view's newest row, with their local hour.

    Of more than MOST_ROWS rows, it loads a random share, about that many.

    The history is left out where it has fewer events than live sources: what counts or spreads events differs there,
    which is no drift.
    """
    snapshot = Snapshot(lake)
    view_table(view_models[0], snapshot)
    newest = snapshot.newest(view.table.id, view.time, days * SPAN)
    if newest is None:
        return with_hour(pl.DataFrame(schema=schema(view.table)), view, config)
    plan = load_plan(config)
    if plan is not None and plan.days and has_sampled_history(view):
        newest = newest.filter(pl.col(view.time) >= plan.end + _LOOK_BACK)
    count: int = newest.select(pl.len()).collect(engine="streaming").item()
    if (shares := count_parts(count, MOST_ROWS)) > 1:
        newest = newest.filter((pl.concat_str(view.entities).hash(1) ^ pl.col(view.time).hash(0)) % shares == 0)
    return with_hour(newest.collect(engine="streaming"), view, config)


def with_hour(rows: pl.DataFrame, view: View, config: Settings) -> pl.DataFrame:
    """Adds the local hour to a view's rows, where the view has no such column."""
    if HOUR in rows.columns:
        return rows
    return rows.with_columns(pl.col(view.time).dt.convert_time_zone(config.timezone).dt.hour().alias(HOUR))


def has_sampled_history(view: View) -> bool:
    """Returns whether the view derives from a source whose history has fewer events than the live source."""
    return any(domain_with(contract).has_sampled_history for contract in _contracts_of(view.table.id))


def _contracts_of(table: str) -> set[Contract]:
    """Returns the contracts that a table derives from, directly or through other tables."""
    bronze = {f"bronze/{contract.name}": contract for contract in contracts()}
    if table in bronze:
        return {bronze[table]}
    sources = tables()[table].sources.values() if table in tables() else ()
    return {contract for source in sources for contract in _contracts_of(source.table)}
