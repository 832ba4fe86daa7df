"""The facts about a day's air, noise and weather."""

from datetime import date

import polars as pl

from city.live.facts import WEEK, Fact, of_day
from city.settings import Settings
from city_assets.environment.tables import CONDITIONS_DAILY

# The categories of the US EPA's air quality index, each with its upper limit.
_AIR = ((50, "good"), (100, "moderate"), (150, "unhealthy for sensitive groups"), (200, "unhealthy"))
_WORST_AIR = "very unhealthy"


def today(config: Settings, day: date) -> list[Fact]:
    """Returns the facts about a local day's air, noise and temperature, compared with the same day a week before."""
    current, previous = (of_day(config, CONDITIONS_DAILY.id, local_day).collect() for local_day in (day, day - WEEK))
    air, noise, temperature = (mean(current, name) for name in ("air_quality", "noise", "temperature"))
    if air is None:
        return [Fact("environment", "There is no data about today's air yet.")]
    worst = current.drop_nulls("air_quality_mean").sort("air_quality_mean").row(-1, named=True)
    place = worst["location"].replace("_", " ")
    sentence = (
        f"The air was {category(air)}; the worst index of a district was {worst['air_quality_mean']:.0f} ({place})."
    )
    if temperature is not None:
        coldest, warmest = current.select(pl.col("temperature_min").min(), pl.col("temperature_max").max()).row(0)
        sentence += f" It was {coldest:.0f} to {warmest:.0f} °C."
    facts = [_build_fact("air", "Air quality index", air, "AQI", mean(previous, "air_quality"), sentence)]
    if noise is not None:
        facts.append(_build_fact("noise", "Noise", noise, "dB", mean(previous, "noise")))
    return facts


def category(index: float) -> str:
    """Returns the US EPA's category of an air quality index."""
    return next((word for limit, word in _AIR if index <= limit), _WORST_AIR)


def mean(rows: pl.DataFrame, quantity: str) -> float | None:
    """Returns the mean of a quantity over the districts, or None if no district has a value."""
    value = rows[f"{quantity}_mean"].mean()
    return float(value) if isinstance(value, float) else None


def _build_fact(name: str, label: str, value: float, unit: str, before: float | None, sentence: str = "") -> Fact:
    return Fact(name, sentence, label, round(value, 1), unit, None if before is None else round(before, 1))
