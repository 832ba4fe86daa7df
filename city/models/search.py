"""Hyperparameters: Optuna, bounded by trials and by time, and resumed where it was left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from city.models.model import Model


def search(model: Model, loss: Callable[[dict[str, Any]], float], store: Path | None, study: str) -> dict[str, Any]:
    """The parameters with the least validation loss, the model's defaults among those tried.

    With a `store` (an SQLite file) the study of that name goes on where it was left, and is over once it has the
    model's number of trials.
    """
    if model.space is None:
        return dict(model.defaults)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if store is not None:
        store.parent.mkdir(parents=True, exist_ok=True)
    found = optuna.create_study(
        study_name=study,
        storage=f"sqlite:///{store}" if store else None,
        sampler=optuna.samplers.TPESampler(seed=0),
        load_if_exists=True,
    )
    if not found.trials and model.defaults:
        found.enqueue_trial(dict(model.defaults))
    space = model.space
    left = model.trials - len([t for t in found.trials if t.state.is_finished()])
    if left > 0:
        found.optimize(lambda trial: loss(space(trial)), n_trials=left, timeout=model.search_seconds)
    return dict(found.best_params)
