"""The live map layers of the traffic.

They show the position of each vehicle, and the congestion of each cell now and in a quarter of an hour.
"""

from datetime import timedelta

from city.live.layers import Layer, Message
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.models import CONGESTION, MINUTES_AHEAD, speed_model
from city_assets.traffic.transforms import Level, level

_WINDOW = VEHICLE_POSITIONS.windows[0]

VEHICLES = Layer(
    name="vehicles",
    kind=VEHICLE_POSITIONS.name,
    key=VEHICLE_POSITIONS.key,
    time=VEHICLE_POSITIONS.event_time,
    columns=("longitude", "latitude", "speed"),
    description="Where each vehicle is, and how fast it goes (km/h), if it says so.",
)


def _congestion(window: Message) -> tuple[Level | None]:
    return (level(window["speed_mean"]),)


CELLS = Layer(
    name="cells",
    kind=_WINDOW.name,
    topic=_WINDOW.topic or "",
    key=_WINDOW.by,
    time="window_start",
    columns=("vehicle_count", "speed_mean", "speed_std"),
    description="Each H3 cell's last two minutes: vehicles, speed (km/h), congestion; "
    "both predicted some minutes ahead.",
    ttl=timedelta(minutes=8),
    settle=timedelta(seconds=40),
    derived=("congestion",),
    derive=_congestion,
    predictions={
        **{f"speed_{minutes}": speed_model(minutes).name for minutes in MINUTES_AHEAD},
        "congestion_15": CONGESTION.name,
    },
)

LAYERS = (VEHICLES, CELLS)
