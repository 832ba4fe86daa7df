"""The declaration of a fleet: the signals that its machines report, and the windows over which features look back.

The contract, the feature table, the model inputs and the messages of a fleet are derived from its declaration (see
`readings_contract`, `features_table` and `life_model`). A domain that has other machines declares another fleet.
"""

from dataclasses import dataclass

from city.contracts import ContractError, Field

ID_PATTERN = r"[A-Za-z0-9][\w.:-]*"


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A quantity that each machine reports: its unit, and the range that a sensor can possibly report (inclusive)."""

    name: str
    unit: str
    minimum: float
    maximum: float
    description: str


@dataclass(frozen=True, kw_only=True)
class Trailing:
    """A trailing window: a number of readings, of which the newest is the row's own."""

    name: str
    readings: int
    description: str
    """The time that the window spans, as in `mean vibration of the last minute`."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Machines that report the same signals. They may be of different kinds, such as pumps and motors.

    Features are the mean of each signal over each of the `windows`, and its standard deviation (`spread`) over the one
    that `spread_over` names. Raises ContractError where the declaration contradicts itself.
    """

    name: str
    signals: tuple[Signal, ...]
    windows: tuple[Trailing, ...]
    spread_over: str

    def __post_init__(self) -> None:
        for what, names in (("signal", self.names), ("window", tuple(window.name for window in self.windows))):
            if not names or len(set(names)) < len(names):
                raise ContractError(f"fleet {self.name!r}: each {what} needs a name of its own; got {list(names)}")
        self.window(self.spread_over)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the signals."""
        return tuple(signal.name for signal in self.signals)

    @property
    def look_back(self) -> int:
        """The number of readings of the longest window."""
        return max(window.readings for window in self.windows)

    def window(self, name: str) -> Trailing:
        """Returns the window of that name. Raises ContractError that lists the known windows."""
        for window in self.windows:
            if window.name == name:
                return window
        known = [window.name for window in self.windows]
        raise ContractError(f"fleet {self.name!r} has no window {name!r}; known: {known}")

    def features_of(self, signal: str) -> tuple[str, ...]:
        """Returns the names of a signal's features."""
        return (*(f"{signal}_{window.name}" for window in self.windows), f"{signal}_spread")

    def fields(self, within: str | None = "readings") -> tuple[Field, ...]:
        """Returns the contract's fields of the signals. `within` names the JSON object that has them."""
        return tuple(
            Field(
                name=signal.name,
                kind="float",
                unit=signal.unit,
                minimum=signal.minimum,
                maximum=signal.maximum,
                description=signal.description,
                within=within,
            )
            for signal in self.signals
        )
