"""The alarms of the traffic: cells that are congested although they usually are not at this time."""

from collections.abc import Mapping
from datetime import timedelta

from city.alerts.conditions import Baseline, Condition, Message, Persistence
from city_assets.traffic.contract import CELL_WINDOW
from city_assets.traffic.transforms import SLOW_KMH

SLOWER = 0.6
"""The share of a cell's usual speed below which congestion is unexpected.

In the first hour of a rush, the median speed of an hour falls by 30 %. At other times it falls by less.
"""
_LEAST_SPEEDS, _LEAST_VEHICLES = 30, 3
"""The least counts of a window whose mean speed is meaningful. Every window begins with fewer."""
_STANDING_KMH = 0.5
_HOUR = timedelta(hours=1) // CELL_WINDOW.every


def _speed(message: Message) -> float | None:
    # A window of an earlier release counts the positions only. Each of them had a speed.
    few = message.get("speeds", message["positions"]) < _LEAST_SPEEDS or message["vehicle_count"] < _LEAST_VEHICLES
    return None if few or message["speed_mean"] is None else float(message["speed_mean"])


def _level(message: Message, usual: float | None) -> float | None:
    """Returns how far the speed is below the limit of unexpected congestion, or None without a usual speed.

    A cell is congested below `SLOW_KMH`, as everywhere. The congestion is unexpected if the speed is also far below the
    cell's last hour. `usual` is the speed of that hour (km/h).
    """
    speed = _speed(message)
    if speed is None or usual is None:
        return None
    return min(SLOW_KMH, SLOWER * usual) / max(speed, _STANDING_KMH)


def _title(message: Message) -> str:
    return (
        f"cell {message['cell']}: unexpected congestion, {message['vehicle_count']} vehicles at "
        f"{message['speed_mean']:.1f} km/h"
    )


def _detail(message: Message) -> Mapping[str, object]:
    return {name: message.get(name) for name in ("speed_mean", "speed_std", "vehicle_count", "window_start", "id")}


CONGESTION = Condition(
    kind="congestion",
    description="A cell is congested, and its last hour does not explain it.",
    type="unexpected_congestion",
    topic=CELL_WINDOW.topic or "",
    only=CELL_WINDOW.name,
    key=CELL_WINDOW.by,
    time="window_start",
    level=_level,
    raised_by=(Persistence(level=1.0, count=2, messages=2),),
    clear_below=0.8,
    calm_for=2 * CELL_WINDOW.every,
    forgotten_after=timedelta(minutes=30),
    title=_title,
    detail=_detail,
    baseline=Baseline(value=_speed, length=_HOUR, least=_HOUR // 2),
)

ALARMS = (CONGESTION,)
