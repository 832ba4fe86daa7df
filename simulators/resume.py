"""Remembers up to which moment a simulator has sent, so that its next process goes on from there."""

from city.settings import Settings
from city.stack.history_plan import load_plan, replace_text

_SAVE_SECONDS = 2.0
_MOST_AHEAD = 3_600.0
"""A clock that is set back by more than this does not silence the simulator."""


class Resume:
    """The moment up to which the simulator `name` has sent events that happen once, such as a payment.

    A killed simulator may send those of its last two seconds again, with the same keys and times.
    """

    def __init__(self, config: Settings, name: str, domain: str) -> None:
        self._config, self._domain = config, domain
        self._path = config.run / f"{name}.sent"
        self._saved = float("-inf")

    def begin(self, now: float) -> float:
        """Returns the moment to go on from (s since 1970): the last one sent, the end of the history, or `now`.

        It is ahead of a clock that was set back.
        """
        try:
            sent = float(self._path.read_text())
        except (OSError, ValueError):
            plan = load_plan(self._config)
            sent = plan.end.timestamp() if plan is not None and plan.has(self._domain) else now
        return sent if sent < now + _MOST_AHEAD else now

    @property
    def is_first(self) -> bool:
        """Whether no process of this city's simulator has sent anything, and the history has nothing of the domain."""
        plan = load_plan(self._config)
        return not self._path.exists() and (plan is None or not plan.has(self._domain))

    def save(self, sent: float) -> None:
        """Remembers a moment, at most every two seconds."""
        if not self._saved <= sent < self._saved + _SAVE_SECONDS:
            replace_text(self._path, str(sent))
            self._saved = sent
