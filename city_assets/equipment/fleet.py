"""The declaration of a fleet: the signals that its machines report, and the windows over which features look back.

The contract, the feature table, the model inputs and the messages of a fleet are derived from its declaration (see
`readings_contract`, `features_table` and `life_model`). A domain that has other machines declares another fleet.
"""

from dataclasses import dataclass

from city.contracts import ContractError, Field


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
    is_for_life: bool = True
    """Whether the model of the remaining life uses the window. Too short a window is noise for it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A signal that is set rather than measured, and the `step` between two settings.

    What is normal for the other signals depends on it, as an engine's pressures depend on its altitude.
    """

    signal: str
    step: float


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Machines that report the same signals. They may be of different kinds, such as pumps and motors.

    Features are the mean of each signal over each of the `windows`, its standard deviation (`spread`) over the one that
    `spread_over` names, and its `trends`: by how much the mean over the first window of a pair exceeds that over the
    second. Raises ContractError where the declaration contradicts itself.
    """

    name: str
    signals: tuple[Signal, ...]
    windows: tuple[Trailing, ...]
    spread_over: str
    trends: tuple[tuple[str, str], ...] = ()
    counter: Signal | None = None
    """The machine's own counter of hours, days or cycles since it was new or repaired, in the unit of its life. It may
    be missing in a reading. The feature `age` is its share of the longest remaining life that is predicted."""
    settings: tuple[Setting, ...] = ()
    """They name the operating condition of a reading, by their numbers of steps: 35, or 35_8 for two settings. Normal
    ranges may be given for each condition."""

    def __post_init__(self) -> None:
        for what, names in (("signal", self.names), ("window", tuple(window.name for window in self.windows))):
            if not names or len(set(names)) < len(names):
                raise ContractError(f"fleet {self.name!r}: each {what} needs a name of its own; got {list(names)}")
        for name in (self.spread_over, *(name for pair in self.trends for name in pair)):
            self.window(name)
        if unknown := sorted({setting.signal for setting in self.settings} - set(self.names)):
            raise ContractError(f"fleet {self.name!r}: no signal {unknown[0]!r} for a setting; known: {self.names}")

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
        return (
            *(f"{signal}_{window.name}" for window in self.windows),
            f"{signal}_spread",
            *(f"{signal}_{newer}_over_{older}" for newer, older in self.trends),
        )

    def signal_of(self, feature: str) -> str:
        """Returns the signal that a feature is of. Raises ContractError for what is no feature of the fleet."""
        for signal in self.names:
            if feature in self.features_of(signal):
                return signal
        raise ContractError(f"fleet {self.name!r} has no feature {feature!r}")

    def fields(self, within: str | None = "readings") -> tuple[Field, ...]:
        """Returns the contract's fields of the signals and the counter. `within` names the JSON object with them."""
        return tuple(
            Field(
                name=signal.name,
                kind="float",
                unit=signal.unit,
                minimum=signal.minimum,
                maximum=signal.maximum,
                description=signal.description,
                nullable=signal is self.counter,
                within=within,
            )
            for signal in (*self.signals, *((self.counter,) if self.counter else ()))
        )
