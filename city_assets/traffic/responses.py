"""The responses of the traffic's routes. Times are in milliseconds since the epoch, speeds in km/h."""

from datetime import datetime
from typing import NotRequired

from pydantic import ConfigDict, JsonValue, with_config
from typing_extensions import TypedDict

from city_assets.traffic.transforms import Level

_DESCRIBED = ConfigDict(use_attribute_docstrings=True)
FeatureValue = bool | int | float | str | datetime | None
WindowRow = tuple[int, str, int, float | None]
"""The start of a window, the H3 cell, the number of vehicles and their mean speed."""
PositionRow = tuple[int, str, float, float, float | None]
"""The time, the vehicle, longitude and latitude in degrees (WGS 84), and the speed, if it is known."""
SeriesRow = tuple[int, float | None, float | None]
"""The start of an interval, the mean speed and the number of vehicles. Nulls are a gap."""


@with_config(_DESCRIBED)
class CellRow(TypedDict):
    """A cell's newest window. Its keys are the columns of the layer `cells`."""

    cell: str
    """An H3 cell of resolution 8."""
    t: int
    """The start of the window."""
    vehicle_count: int
    speed_mean: float | None
    speed_std: float | None
    congestion: Level | None
    speed_5: float | None
    """The mean speed that is predicted for five minutes later; null without a champion or fresh features."""
    speed_10: float | None
    speed_15: float | None
    congestion_15: Level | None


@with_config(_DESCRIBED)
class Thresholds(TypedDict):
    """The mean speeds that bound the levels of congestion."""

    high_below: float
    medium_below: float


@with_config(_DESCRIBED)
class TrafficResponse(TypedDict):
    """Every cell's newest window."""

    vehicles: int
    speed_mean: float | None
    """The mean over cells, weighted by vehicles."""
    by_congestion: dict[str, int]
    """The number of cells of each level."""
    thresholds_kmh: Thresholds
    cells: list[CellRow]


@with_config(_DESCRIBED)
class CellAhead(TypedDict):
    """A cell some minutes ahead."""

    cell: str
    speed_now: float | None
    speed_5: NotRequired[float | None]
    speed_10: NotRequired[float | None]
    speed_15: NotRequired[float | None]
    congestion_15: NotRequired[Level | None]
    congestion: Level | None
    """The level of the predicted speed."""


@with_config(_DESCRIBED)
class CellsAheadResponse(TypedDict):
    """Every cell some minutes ahead, by the champions."""

    minutes: int
    serving: dict[str, int | None]
    """The champion's version by model; null where a model has none yet."""
    cells: list[CellAhead]


@with_config(_DESCRIBED)
class Hotspot(CellRow):
    """A cell whose vehicles are slow."""

    lost: float
    """The vehicles times what their mean speed lacks of a free one, in vehicle-km/h."""


@with_config(_DESCRIBED)
class HotspotsResponse(TypedDict):
    """The cells where most vehicles are slow, the worst first."""

    hotspots: list[Hotspot]


@with_config(_DESCRIBED)
class CellPrediction(TypedDict):
    """A model's output for a cell. Without fresh features it has only the model and its version."""

    model: str
    means: str
    version: int | None
    """Null while the model has no champion."""
    prediction: NotRequired[float | str]
    confidence: NotRequired[float | None]
    """The probability of a class; null for a number."""
    low: NotRequired[float | None]
    """The lower end of a number's interval."""
    high: NotRequired[float | None]


@with_config(_DESCRIBED)
class WindowsResponse(TypedDict):
    """Windows of cells."""

    columns: list[str]
    rows: list[WindowRow]


@with_config(_DESCRIBED)
class CellResponse(TypedDict):
    """All that is known of a cell."""

    cell: str
    now: CellRow | None
    """Its newest window; null where there was none for some minutes."""
    features: dict[str, FeatureValue]
    """The features in the online store."""
    predictions: list[CellPrediction]
    history: WindowsResponse
    """Its windows of the last hours."""


@with_config(_DESCRIBED)
class PositionsResponse(TypedDict):
    """Positions of vehicles, in the order of time."""

    columns: list[str]
    rows: list[PositionRow]


@with_config(_DESCRIBED)
class SeriesResponse(TypedDict):
    """The city's traffic over time."""

    columns: list[str]
    units: dict[str, str]
    """The unit of each column of values."""
    rows: list[SeriesRow]
    week_before: list[SeriesRow]
    """The rows of a week earlier, with their times moved to this week."""


class KeplerField(TypedDict):
    """A column of Kepler.gl's data."""

    name: str
    type: str
    format: str
    analyzerType: str


class KeplerData(TypedDict):
    """A table of Kepler.gl."""

    id: str
    label: str
    color: list[int]
    allData: list[list[JsonValue]]
    fields: list[KeplerField]


class KeplerDataset(TypedDict):
    """A table of Kepler.gl, with the version of its format."""

    version: str
    data: KeplerData


class KeplerConfig(TypedDict):
    """The map's settings as Kepler.gl defines them, with the version of their format."""

    version: str
    config: dict[str, JsonValue]


class KeplerResponse(TypedDict):
    """A map as Kepler.gl saves and opens it (schema v1)."""

    datasets: list[KeplerDataset]
    config: KeplerConfig
    info: dict[str, str]
