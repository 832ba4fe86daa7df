"""Builds the taxi tables of the lake at CITY_HOME with the engine that CITY_ENGINE names; prints a JSON line.

Arguments: a home to warm up on, and the tables. The warm-up lets the engines compile their code and open their files
before the clock starts.
"""

import json
import sys
import time
from pathlib import Path

from city.lake.lakehouse import Lakehouse, lakehouse
from city.settings import settings
from city.tables.registry import table_of


def build(lake: Lakehouse, names: list[str]) -> dict[str, float]:
    days = sorted(day for day in lake.rows_by_day(table_of("bronze/trips")) if day)
    began = time.perf_counter()
    for name in names:
        lake.build(table_of(name), days)
    return {"seconds": time.perf_counter() - began, "rows": lake.count(table_of("bronze/trips"))}


def main(warm: str, names: list[str]) -> None:
    config = settings()
    build(lakehouse(config.model_copy(update={"home": Path(warm)})), names)
    print(json.dumps(build(lakehouse(config), names)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
