"""The columns that several tables of the traffic have."""

from city.tables import Column, calendar
from city_assets.traffic import transforms

DAY, LOCAL_HOUR, WEEKDAY, _, RUSH_HOUR = calendar.COLUMNS
HOLIDAY = Column(name="holiday", kind="boolean", description="whether the day is a public holiday")
HOUR = (
    DAY,
    Column(name="hour", kind="timestamp", description="the hour's beginning, UTC"),
    LOCAL_HOUR,
    WEEKDAY,
    RUSH_HOUR,
)
"""The columns of an hourly table's hour."""


def congestion(*sources: str, nullable: bool = False) -> Column:
    """Returns the column of the congestion level of the mean speed."""
    description = f"high below {transforms.SLOW_KMH:g} km/h, medium below {transforms.FREE_KMH:g} km/h, else low"
    return Column(name="congestion", kind="string", description=description, nullable=nullable, origins=sources)


def speed(source: str, nullable: bool = False) -> tuple[Column, ...]:
    """Returns the columns of a speed's mean, its standard deviation, and the congestion level of the mean.

    They are `nullable` where a speed may be unknown.
    """
    return (
        Column(
            name="speed_mean", kind="float", unit="km/h", nullable=nullable, description="mean speed", origins=(source,)
        ),
        Column(
            name="speed_std", kind="float", unit="km/h", nullable=True, description="spread of speed", origins=(source,)
        ),
        congestion(source, nullable=nullable),
    )


def count(name: str, description: str, *sources: str, nullable: bool = False) -> Column:
    """Returns a column of a number of things. It is `nullable` where an earlier release did not count them."""
    return Column(name=name, kind="integer", nullable=nullable, description=description, origins=sources)


def feature(name: str, description: str, *sources: str, unit: str | None = "km/h", nullable: bool = True) -> Column:
    """Returns a column of a feature: a number, by default a speed that may be missing."""
    return Column(name=name, kind="float", unit=unit, nullable=nullable, description=description, origins=sources)
