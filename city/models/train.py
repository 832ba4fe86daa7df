"""Trains a model on a feature view's rows, up to a registered version.

The steps are: fit (`city.models.fitting`), register, promote.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import polars as pl

from city.models import examples
from city.models.card import card
from city.models.compatible import inputs_digest, takes_inputs
from city.models.exported import Exported
from city.models.figures import figures
from city.models.fitting import FittedModel, Progress, fit
from city.models.model import Model
from city.models.registry import Registry, Version
from city.settings import CHECKOUT

_EXAMPLE_ROWS = 5


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training."""

    version: Version
    fitted: FittedModel
    promoted: bool
    reason: str


def train(
    model: Model,
    rows: pl.DataFrame,
    registry: Registry,
    *,
    data_version: int,
    truth: pl.DataFrame | None = None,
    home: Path | None = None,
    now: datetime | None = None,
    promote: bool = True,
    tags: Mapping[str, str] | None = None,
    progress: Progress = lambda line: None,
) -> TrainingResult:
    """Fits a model, registers a version as the challenger, and makes it the champion where it is better.

    It must be better than the champion, or than the naive baseline where there is no champion or where that takes other
    inputs, and `promote` must allow it. `tags` are stored with the run and the version. `data_version` is the Delta
    version of the rows, and `home` the folder in which the search is stored. Where a step before fails, the champion
    stays.
    """
    moment = now or datetime.now(UTC)
    champion = registry.at(model.name)
    if champion and not takes_inputs(model, champion, registry):
        progress(f"{model.name}: version {champion.number} takes other inputs, so it is not compared with")
        champion = None
    serving = Exported(model, registry.content(champion)).predict if champion else None
    # A study of another release, or of other inputs, would give parameters that do not fit.
    name = f"{model.name}-{data_version}-{inputs_digest(model)}-{code_version()}"
    study = (home / "models" / "search.db" if home else None, name)
    fitted = fit(model, rows, champion=serving, now=moment, truth=truth, study=study, progress=progress)
    all_tags = {
        "data_version": str(data_version),
        "code_version": code_version(),
        "features": model.view.name,
        "trained_at": moment.isoformat(),
        **(tags or {}),
    }
    example = fitted.parts.held_out.head(_EXAMPLE_ROWS)
    version = registry.add(
        model,
        fitted.exported,
        parameters=fitted.parameters,
        metrics={f"{who}_{name}": value for who, metrics in fitted.scores.items() for name, value in metrics.items()},
        tags=all_tags,
        card=card(
            model, fitted.parts, fitted.parameters, fitted.scores, fitted.importance, all_tags, fitted.verdict, moment
        ),
        example=examples.inputs(model, example),
        figures=dict(figures(model, fitted)),
    )
    version = registry.challenge(version)
    better, reason = _decide_promotion(model, fitted)
    if better and promote:
        registry.promote(version, reason)
    elif better:
        reason = f"{reason}; waiting for `city models promote {model.name}`"
    progress(f"{model.name} version {version.number}: {reason}")
    return TrainingResult(registry.version(model.name, version.number), fitted, better and promote, reason)


@lru_cache(maxsize=1)
def code_version() -> str:
    """Returns the commit of the code, or the package's version outside a checkout."""
    from importlib.metadata import version

    try:
        result = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True)
    except OSError:
        return version("city")
    return result.stdout.strip() or version("city")


def _decide_promotion(model: Model, fitted: FittedModel) -> tuple[bool, str]:
    """Returns whether a version should become the champion, and why."""
    if fitted.verdict is not None:
        return fitted.verdict.better, fitted.verdict.reason
    name = model.measure
    ours, naive = (fitted.scores[who][name] for who in ("model", "naive"))
    if ours < naive:
        return True, f"the first, and better than the naive answer ({name} {ours:.4g}, not {naive:.4g})"
    return False, f"no better than the naive answer ({name} {ours:.4g}, not {naive:.4g})"
