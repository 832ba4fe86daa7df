"""city models: lists, trains, promotes and rolls back models, and shows their cards."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from city.models.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Models: list, train, promote, roll back, read their cards.")
Name = Annotated[str, typer.Argument(help="as `city models list` shows it")]
Number = Annotated[int | None, typer.Argument(help="a version; default: the challenger (card: the champion)")]


@app.command("list")
def listed() -> None:
    """List models, their champions and challengers, and the scores of both on held-out rows."""
    from rich.table import Table

    from city.models.model import models
    from city.models.registry import CHALLENGER, CHAMPION
    from city.stack.terminal import Terminal

    table = Table("model", "version", "alias", "held out", "naive", "trained")
    registry = _registry()
    for model in models().values():
        shown = [v for v in registry.versions(model.name) if {CHAMPION, CHALLENGER} & {*v.aliases}]
        for v in shown:
            scores = [_score(model.measure, v.metrics, source) for source in ("model", "naive")]
            table.add_row(model.name, str(v.number), ", ".join(v.aliases), *scores, v.tags["trained_at"][:16])
        if not shown:
            table.add_row(model.name, "none yet", "", "", "", "")
    Terminal().print(table)


@app.command()
def train(name: Name) -> None:
    """Train a model now, on all rows of its features, and promote it if it is better."""
    from city.lake.snapshot import Snapshot
    from city.models.model import model_of
    from city.settings import settings
    from city.stack.terminal import Terminal
    from city_assets.training import train_on

    console = Terminal()
    config = settings()
    with console.status(f"training {name}"):
        trained = train_on(model_of(name), Snapshot(config.lake), config, _registry(), console.log)
    console.print(f"version {trained.version.number}: {trained.reason}")


@app.command()
def promote(name: Name, version: Number = None) -> None:
    """Promote a version to champion."""
    from city.models.model import ModelError, model_of
    from city.models.registry import CHALLENGER

    registry = _registry()
    chosen = registry.version(name, version) if version else registry.at(model_of(name).name, CHALLENGER)
    if chosen is None:
        raise ModelError(f"model {name!r} has no challenger: name a version")
    registry.promote(chosen, "by hand")
    typer.echo(f"{name} version {chosen.number} is the champion")


@app.command()
def rollback(name: Name) -> None:
    """Restore the previous champion."""
    typer.echo(f"{name} version {_registry().rollback(name).number} is the champion again")


@app.command()
def card(name: Name, version: Number = None) -> None:
    """Show a version's model card."""
    from rich.markdown import Markdown

    from city.models.model import ModelError, model_of
    from city.stack.terminal import Terminal

    registry = _registry()
    chosen = registry.version(name, version) if version else registry.at(model_of(name).name)
    if chosen is None:
        raise ModelError(f"model {name!r} has no champion yet: name a version, or train it")
    Terminal().print(Markdown(registry.card(chosen)))


@app.command("pin")
def pin(view: Annotated[str, typer.Argument(help="a feature view, such as traffic_features")]) -> None:
    """Use the newest day of a feature view as the reference of its drift."""
    from city.features.views import view_of
    from city.models.model import ModelError
    from city.settings import settings
    from city_assets.monitoring.references import models_by_view
    from city_assets.monitoring.references import pin as pinned

    watched_views = models_by_view()
    if view not in watched_views:
        raise ModelError(f"no model looks at the view {view!r}; known: {', '.join(sorted(watched_views))}")
    config = settings()
    typer.echo(f"{view}: {pinned(view_of(view), watched_views[view], config.lake, config):,} rows pinned")


def _score(measure: str, metrics: Mapping[str, float], source: str) -> str:
    return f"{measure} {metrics.get(f'{source}_{measure}', float('nan')):.4g}"


def _registry() -> "Registry":
    from city.models.registry import Registry
    from city.settings import settings

    return Registry(settings())
