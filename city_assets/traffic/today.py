"""The facts about a day's traffic: its speed compared with a week before, the slowest hour, and the congested cells."""

from datetime import date

import polars as pl

from city.live.facts import WEEK, Fact, count_text, of_day
from city.settings import Settings
from city_assets.traffic.history import mean_speed, speed
from city_assets.traffic.tables import CELLS_HOURLY


def today(config: Settings, day: date) -> list[Fact]:
    """Returns the facts about a local day's traffic, compared with the same day a week before."""
    current, previous = (of_day(config, CELLS_HOURLY.id, local_day).collect() for local_day in (day, day - WEEK))
    if current.is_empty():
        return [Fact("traffic", "There is no data about today's traffic yet: the first hour is being built.")]
    kmh, before = mean_speed(current), mean_speed(previous)
    sentence = "No vehicle reported its speed" if kmh is None else f"Traffic moved at {kmh:.1f} km/h"
    if kmh is not None and before:
        sentence += f", {abs(kmh / before - 1):.0%} {'faster' if kmh > before else 'slower'} than a week ago"
    hours = current.group_by("local_hour").agg(speed()).drop_nulls().sort("speed_mean")
    if hours.height > 1:
        hour, slowest = hours.row(0)
        sentence += f"; it was slowest from {hour}:00, with {slowest:.1f} km/h"
    cells = current.filter(pl.col("congestion") == "high")["cell"].n_unique()
    sentence += (
        f". {count_text(cells, 'cell').capitalize()} {'were' if cells > 1 else 'was'} congested for an hour or more."
    )
    positions, previous_positions = int(current["positions"].sum()), int(previous["positions"].sum())
    figure = Fact("traffic", sentence)
    if kmh is not None:
        figure = Fact("traffic", sentence, "Mean speed", round(kmh, 1), "km/h", round(before, 1) if before else None)
    return [
        figure,
        Fact("positions", label="Positions of vehicles", value=positions, before=previous_positions or None),
    ]
