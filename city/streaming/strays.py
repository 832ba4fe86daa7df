"""Writes `quarantine/mqtt`: messages that Kafka cannot take, or that no contract declares.

They come by MQTT, from the Kafka topics of sources, and from feeds.
"""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as mqtt

from city.lake import STRAYS, locate
from city.streaming.deliveries import topic_of

_RAW_KEPT = 65_536


class Stray(NamedTuple):
    """A message of which not all goes to Kafka, with the reasons.

    `topic` is its MQTT topic, its Kafka topic, or the name of its feed. `arrived` is in seconds since the epoch.
    """

    topic: str
    payload: bytes
    reasons: tuple[str, ...]
    arrived: float


_offsets = threading.Lock()
_next_offset = 0


def _take_offsets(count: int) -> int:
    """Returns the first of `count` offsets that nothing else has: an erasure identifies rows by them.

    They begin at the clock, so that they are unique across restarts. Several threads of the bridge take some.
    """
    global _next_offset
    with _offsets:
        first = max(time.time_ns(), _next_offset)
        _next_offset = first + count
    return first


def stray(message: mqtt.MQTTMessage, *reasons: str) -> Stray:
    """Returns a message as it is quarantined now."""
    return Stray(topic_of(message), bytes(message.payload), reasons, time.time())


def strays_path(lake: Path) -> Path:
    """Returns the path of the table with the messages that have no place in a contract's quarantine."""
    return locate(lake, "quarantine", STRAYS)


def quarantine_strays(lake: Path, strays: Sequence[Stray]) -> None:
    """Commits the messages to the quarantine, under their MQTT topic, with the first 64 KiB of their payload."""
    import polars as pl  # takes some hundred megabytes of memory, which a bridge without strays does not need
    from deltalake import write_deltalake

    from city.contracts.schema import QUARANTINE
    from city.lake.tables import open_table

    first = _take_offsets(len(strays))
    rows = pl.DataFrame(
        {
            "topic": [stray.topic for stray in strays],
            "partition": [0] * len(strays),
            "offset": [first + number for number in range(len(strays))],
            "arrived": [datetime.fromtimestamp(stray.arrived, UTC) for stray in strays],
            "reasons": [list(stray.reasons) for stray in strays],
            "raw": [stray.payload[:_RAW_KEPT] for stray in strays],
            "contract_version": [None] * len(strays),
        },
        schema=QUARANTINE,
    )
    write_deltalake(open_table(strays_path(lake), QUARANTINE), rows, mode="append")
