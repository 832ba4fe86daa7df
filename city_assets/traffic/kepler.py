"""Exports the traffic of a period as a map for Kepler.gl, in the format that Kepler.gl saves (its schema v1)."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import JsonValue

from city_assets.traffic.responses import KeplerField, KeplerResponse, WindowRow
from city_assets.traffic.transforms import level

_DATASET = "cells"
_KINDS = {"time": ("timestamp", "YYYY-M-D H:m:s"), "cell": ("string", ""), "congestion": ("string", "")}
_COLOURS = ["#56B4E9", "#F0E442", "#D55E00"]


def kepler_map(rows: Sequence[WindowRow]) -> KeplerResponse:
    """Builds the map of windows: their start (ms since the epoch), cell, vehicles and mean speed (km/h)."""
    data_rows: list[list[JsonValue]] = [
        [
            datetime.fromtimestamp(start / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            cell,
            vehicles,
            speed,
            level(speed),
        ]
        for start, cell, vehicles, speed in rows
    ]
    names = ["time", "cell", "vehicle_count", "speed_mean", "congestion"]
    fields: list[KeplerField] = [
        {"name": name, "type": kind, "format": form, "analyzerType": kind.upper()}
        for name in names
        for kind, form in [_KINDS.get(name, ("real" if name == "speed_mean" else "integer", ""))]
    ]
    return {
        "datasets": [
            {
                "version": "v1",
                "data": {
                    "id": _DATASET,
                    "label": "Traffic by H3 cell",
                    "color": [86, 180, 233],
                    "allData": data_rows,
                    "fields": fields,
                },
            }
        ],
        "config": {"version": "v1", "config": _map_config()},
        "info": {"app": "kepler.gl", "created_at": datetime.now(UTC).isoformat(), "title": "Traffic"},
    }


def _map_config() -> dict[str, JsonValue]:
    layer: JsonValue = {
        "id": "speed",
        "type": "hexagonId",
        "config": {
            "dataId": _DATASET,
            "label": "Mean speed",
            "columns": {"hex_id": "cell"},
            "isVisible": True,
            "visConfig": {
                "opacity": 0.7,
                "colorRange": {
                    "name": "Okabe-Ito",
                    "type": "custom",
                    "category": "Custom",
                    "colors": [*reversed(_COLOURS)],
                },
                "coverage": 0.95,
                "enable3d": True,
                "sizeRange": [0, 500],
                "elevationScale": 5,
            },
        },
        "visualChannels": {
            "colorField": {"name": "speed_mean", "type": "real"},
            "colorScale": "quantile",
            "sizeField": {"name": "vehicle_count", "type": "integer"},
            "sizeScale": "linear",
        },
    }
    shown: list[JsonValue] = [
        {"name": name, "format": None} for name in ("time", "cell", "vehicle_count", "speed_mean", "congestion")
    ]
    return {
        "visState": {
            "filters": [{"dataId": [_DATASET], "id": "time", "name": ["time"], "type": "timeRange", "enlarged": True}],
            "layers": [layer],
            "interactionConfig": {"tooltip": {"fieldsToShow": {_DATASET: shown}, "enabled": True}},
        },
        "mapState": {
            "latitude": 40.752,
            "longitude": -73.975,
            "zoom": 11.6,
            "pitch": 50,
            "bearing": -17,
            "dragRotate": True,
        },
        "mapStyle": {"styleType": "dark"},
    }
