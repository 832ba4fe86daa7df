"""MQTT messages that belong to no contract are found by name."""

import json
import time

import polars as pl

from city.contracts.registry import contracts
from city.privacy.erase import find, forget, kinds
from city.settings import Settings
from city.streaming.strays import Stray, quarantine_strays, strays_path
from tests.commands import city


def test_strays_are_counted_and_shown_and_cut_short(config: Settings) -> None:
    stray = Stray(
        "city/old/bench_7", b"y" * 100_000, ("message: no contract has the MQTT topic 'city/old/bench_7'",), time.time()
    )
    quarantine_strays(config.lake, [stray, stray])
    quarantine_strays(config.lake, [stray])
    report = json.loads(city("status", "--json"))
    assert report["quarantined"] == {contract.topic: 0 for contract in contracts()} | {"mqtt": 3}
    assert "mqtt" in city("status")
    shown = city("table", "quarantine/mqtt")
    assert "city/old/" in shown
    assert "3 rows" in shown
    kept = pl.read_delta(str(strays_path(config.lake)))
    assert kept["reasons"].explode().unique().to_list() == list(stray.reasons)
    assert kept["raw"].bin.size().unique().to_list() == [65_536]
    assert kept["offset"].is_unique().all()


def test_what_they_say_of_somebody_is_erased_with_the_rest(config: Settings) -> None:
    kind = next(iter(kinds()))
    for name in ("one", "other"):
        quarantine_strays(
            config.lake, [Stray("city/old", b'{"x": "%s"}' % name.encode(), ("message: no contract",), time.time())]
        )
    assert find(config, kind, "one") == {"quarantine/mqtt": 1}
    forget(config, kind, "one")
    assert find(config, kind, "one") == {}
    assert find(config, kind, "other") == {"quarantine/mqtt": 1}
