"""Decides whether a model should be trained again, and why."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from city.drift.measures import Measurement
from city.drift.monitor import Thresholds
from city.models.history import Growth
from city.models.model import Model, ModelError
from city.models.registry import Version

FRESH_SHARE = 0.5
"""A model is trained again when so many new rows have arrived, as a share of those that it could learn from."""
LEAST_BETWEEN = timedelta(hours=1)


@dataclass(frozen=True)
class Signs:
    """What is known about a model since it was trained."""

    newest: Version | None
    """The newest version, champion or not. That it was no better is no reason to try again at once."""
    rows: int
    """The number of rows that the newest version could learn from, and of those that have arrived since."""
    rows_at_training: int
    """The number of rows that the newest version could learn from."""
    drifted: tuple[str, ...] = ()
    """The inputs that have drifted from the reference."""
    takes_inputs: bool = True
    """Whether the newest version takes the model's inputs: a release may change them."""
    decay: Measurement | None = None
    """The comparison of the newest version's first losses with its last. None while there are too few."""


def check_growth(model: Model, grown: Growth) -> None:
    """Raises ModelError where a view has too few rows to be split, as far as the Delta log shows.

    `grown` is the growth since the view's beginning.
    """
    if grown.span < model.label.least_span:
        raise ModelError(
            f"model {model.name!r}: its rows cover {grown.span}, but it needs {model.label.least_span}, because labels "
            f"are known up to {model.label.wait} after their rows; let the stream run longer"
        )
    if grown.rows < 2 * model.least_rows:
        raise ModelError(
            f"model {model.name!r}: {grown.rows} rows are too few, it needs {2 * model.least_rows}; "
            "let the stream run longer, or build more days of its features"
        )


def has_decayed(decay: Measurement | None, limits: Thresholds) -> bool:
    """Returns whether losses have grown by so much that a model must be trained again. None is no growth."""
    return decay is not None and decay.p_value <= limits.alpha and decay.effect >= limits.effects["losses"]


def has_outgrown(rows: int, rows_at_training: int) -> bool:
    """Returns whether so many rows have arrived since a training that another one learns much more."""
    return rows >= (1 + FRESH_SHARE) * rows_at_training


def reason(model: Model, signs: Signs, now: datetime, thresholds: Thresholds | None = None) -> str | None:
    """Returns the reason to train now, or None where there is none.

    A model is trained at most once an hour, whatever the signs are.
    """
    limits = thresholds or Thresholds()
    if signs.newest is None:
        return "first training"
    trained = datetime.fromisoformat(signs.newest.tags["trained_at"])
    if now - trained < LEAST_BETWEEN:
        return None
    if not signs.takes_inputs:
        return "the model has other inputs than its newest version"
    decay = signs.decay
    if decay is not None and has_decayed(decay, limits):
        return f"performance decay: losses grew by {decay.effect:.2f} deviations"
    if drifted_inputs := sorted(set(signs.drifted) & set(model.inputs)):
        return f"drift of {', '.join(drifted_inputs)}"
    if has_outgrown(signs.rows, signs.rows_at_training):
        return f"new labels: {signs.rows - signs.rows_at_training:,} rows since the last training"
    return None
