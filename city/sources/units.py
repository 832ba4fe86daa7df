"""Converts between units of the same dimension. All conversions are linear."""

from dataclasses import dataclass


class UnitError(ValueError):
    """Reports an unknown unit, or two units of different dimensions. The message names the known units."""


@dataclass(frozen=True)
class Unit:
    """A unit: what it measures, and its value in the dimension's first unit, which is `scale` · x + `offset`."""

    dimension: str
    scale: float = 1.0
    offset: float = 0.0


UNITS: dict[str, Unit] = {
    "°C": Unit("temperature"),
    "°F": Unit("temperature", 5 / 9, -160 / 9),
    "K": Unit("temperature", 1.0, -273.15),
    "Pa": Unit("pressure"),
    "hPa": Unit("pressure", 100.0),
    "kPa": Unit("pressure", 1_000.0),
    "mbar": Unit("pressure", 100.0),
    "bar": Unit("pressure", 100_000.0),
    "psi": Unit("pressure", 6_894.757293168),
    "inHg": Unit("pressure", 3_386.389),
    "m": Unit("length"),
    "mm": Unit("length", 0.001),
    "cm": Unit("length", 0.01),
    "km": Unit("length", 1_000.0),
    "in": Unit("length", 0.0254),
    "ft": Unit("length", 0.3048),
    "mi": Unit("length", 1_609.344),
    "m/s": Unit("speed"),
    "mm/s": Unit("speed", 0.001),
    "in/s": Unit("speed", 0.0254),
    "km/h": Unit("speed", 1 / 3.6),
    "mph": Unit("speed", 0.44704),
    "kn": Unit("speed", 1_852 / 3_600),
    "mm/h": Unit("rain"),
    "in/h": Unit("rain", 25.4),
    "W": Unit("power"),
    "kW": Unit("power", 1_000.0),
    "MW": Unit("power", 1e6),
    "hp": Unit("power", 745.6998715822702),
    "kWh": Unit("energy"),
    "Wh": Unit("energy", 0.001),
    "MWh": Unit("energy", 1_000.0),
    "J": Unit("energy", 1 / 3.6e6),
    "V": Unit("voltage"),
    "mV": Unit("voltage", 0.001),
    "kV": Unit("voltage", 1_000.0),
    "A": Unit("current"),
    "mA": Unit("current", 0.001),
    "%": Unit("share"),
    "1": Unit("share", 100.0),
    "°": Unit("angle"),
    "rad": Unit("angle", 57.29577951308232),
    "dB": Unit("level"),
    "AQI": Unit("air quality"),
    "µg/m³": Unit("concentration"),
    "mg/m³": Unit("concentration", 1_000.0),
    "vehicles/min": Unit("flow"),
    "vehicles/h": Unit("flow", 1 / 60),
}
"""All units that a source may name. The first of a dimension is the one that the others are converted through."""

UNIT_CODES = {
    "CEL": "°C",
    "FAH": "°F",
    "KEL": "K",
    "PAL": "Pa",
    "A97": "hPa",
    "KPA": "kPa",
    "MBR": "mbar",
    "BAR": "bar",
    "MTS": "m/s",
    "KMH": "km/h",
    "HM": "mph",
    "KNT": "kn",
    "GQ": "µg/m³",
    "GP": "mg/m³",
    "P1": "%",
    "C62": "1",
    "2N": "dB",
}
"""Units by their code of UN/CEFACT Recommendation 20, as in the `unitCode` of NGSI."""


def are_alike(unit: str, to: str) -> bool:
    """Returns whether both units measure the same. Raises UnitError for an unknown one."""
    return _unit(unit).dimension == _unit(to).dimension


def _unit(name: str) -> Unit:
    if name not in UNITS:
        raise UnitError(f"unknown unit {name!r}; known: {', '.join(UNITS)}")
    return UNITS[name]


def conversion(unit: str, to: str) -> tuple[float, float]:
    """Returns the factor and the summand of a conversion. Raises UnitError."""
    origin, target = _unit(unit), _unit(to)
    if origin.dimension != target.dimension:
        alike = ", ".join(name for name, known in UNITS.items() if known.dimension == target.dimension)
        raise UnitError(
            f"{unit!r} measures {origin.dimension}, and {to!r} measures {target.dimension}; units of it: {alike}"
        )
    return origin.scale / target.scale, (origin.offset - target.offset) / target.scale
