"""Searches hyperparameters by Optuna. A search is limited by trials and by time, and can be resumed."""

from collections.abc import Callable
from pathlib import Path

from city.models.model import Model, Parameters


def search(model: Model, loss: Callable[[Parameters], float], store: Path | None, study: str) -> Parameters:
    """Returns the parameters with the least validation loss. The model's defaults are among those tried.

    With a `store` (an SQLite file), the study of that name resumes where it stopped. It ends when it has the model's
    number of trials.
    """
    if model.space is None:
        return dict(model.defaults)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if store is not None:
        store.parent.mkdir(parents=True, exist_ok=True)
    optuna_study = optuna.create_study(
        study_name=study,
        storage=f"sqlite:///{store}" if store else None,
        sampler=optuna.samplers.TPESampler(seed=0),
        load_if_exists=True,
    )
    if not optuna_study.trials and model.defaults:
        optuna_study.enqueue_trial(dict(model.defaults))
    space = model.space
    left = model.trials - len([t for t in optuna_study.trials if t.state.is_finished()])
    if left > 0:
        optuna_study.optimize(lambda trial: loss(space(trial)), n_trials=left, timeout=model.search_seconds)
    return dict(optuna_study.best_params)
