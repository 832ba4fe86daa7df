"""Shares the metrics of champions by their newest outcomes with the process that evaluates the rules."""

from collections.abc import Mapping
from datetime import datetime

from city.alerts.schema import Database, read_state, write_state

SHARED = "metrics/"
"""Precedes the name of each set of metrics that `city.alerts.watch.shared` reads."""
_VERSION = "version"
_NEWEST = "newest_outcome/"


class OutcomeMetrics:
    """The metrics of each champion by its newest outcomes. Thread-safe, and safe for several processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def share(self, model: str, version: int, metrics: Mapping[str, float], newest: datetime | None) -> None:
        """Stores a champion's metrics, unless newer outcomes have been shared.

        `newest` is the time of the newest outcome that the metrics are of; None where there are no outcomes. A run for
        an old day, and one for a day that has no outcome yet, leave the stored metrics as they are. The metrics of
        another version are removed even then, because they are not the champion's.
        """
        seconds = None if newest is None else newest.timestamp()
        with self._database.changing() as db:
            stored = read_state(db, _NEWEST + model) or {_VERSION: None, "at": None}
            if seconds is None or (stored["at"] is not None and seconds < stored["at"]):
                if stored[_VERSION] == version:
                    return
                metrics, seconds = {}, stored["at"]
            write_state(db, f"{SHARED}outcomes/{model}", name_metrics(model, version, metrics))
            write_state(db, _NEWEST + model, {_VERSION: version, "at": seconds})


def name_metrics(model: str, version: int, metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Names the metrics of a version as alert rules do: `model.<metric>.<model>`, and `model.version.<model>`."""
    return {f"model.{name}.{model}": value for name, value in {**metrics, _VERSION: float(version)}.items()}


def of_model(metrics: Mapping[str, float | None], model: str, version: int) -> dict[str, float]:
    """Selects the metrics of a version from those that `name_metrics` named.

    Returns none where they are of another version.
    """
    if metrics.get(f"model.{_VERSION}.{model}") != version:
        return {}
    names = {key: key.split(".", 2)[1] for key in metrics if key.split(".", 2)[2:] == [model]}
    return {name: value for key, name in names.items() if name != _VERSION and (value := metrics[key]) is not None}
