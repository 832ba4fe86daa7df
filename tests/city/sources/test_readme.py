"""The README's own source."""

import re
from datetime import UTC, datetime
from pathlib import Path

from city.settings import CHECKOUT
from city.sources.mapping import map_messages
from city.sources.model import At, Joined, Source
from city_assets.environment.contract import SENSORS


def test_the_readmes_source_reads_its_sample() -> None:
    text = Path(CHECKOUT / "README.md").read_text()
    (declared,) = re.findall(r"# city_assets/environment/sources\.py\n(WEATHER_STATION = .*?)\n```", text, re.S)
    names = {"Source": Source, "At": At, "Joined": Joined, "SENSORS": SENSORS}
    exec(declared, names)  # the README's own text
    source = names["WEATHER_STATION"]
    assert isinstance(source, Source)
    mapped = map_messages(source, [source.sample.encode()], ["stations/roof-3/report"])
    assert mapped.rejected == {}
    rows = mapped.events.select("sensor_id", "value", "unit").rows()
    assert [(name, round(value, 2), unit) for name, value, unit in rows] == [
        ("roof-3_temperature", 21.22, "°C"),
        ("roof-3_humidity", 48.5, "%"),
    ]
    assert mapped.events["timestamp"][0] == datetime(2026, 11, 25, 23, 9, tzinfo=UTC)
