"""Reads feeds of GTFS-realtime (protobuf) as JSON, with the names of its specification."""

import json
from collections.abc import Collection
from typing import Any

from city.sources.model import FormatError

MAX_ENTITIES = 50_000
"""The most entities of a feed. The largest published feeds have some ten thousand vehicles. An empty entity has two
bytes, and costs about 6 µs and 1 kB to convert, so a feed of 20 MB without this limit would stop a server for a minute.
"""


def feed_to_json(feed: bytes, parts: Collection[str]) -> bytes:
    """Converts a FeedMessage to JSON. Its entities have only the fields `parts`, such as `id` and `vehicle`.

    Raises FormatError for other bytes, and for more than MAX_ENTITIES entities.
    """
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError
    from google.transit.gtfs_realtime_pb2 import FeedMessage

    message = FeedMessage()
    try:
        message.ParseFromString(feed)
        if not message.IsInitialized():
            raise DecodeError("it has no header")
    except DecodeError:
        begin = feed.lstrip()[:1]
        hint = "; it looks like a web page or JSON. Send protobuf" if begin in (b"<", b"{", b"[") else ""
        raise FormatError(f"{len(feed):,} bytes that are no FeedMessage of GTFS-realtime{hint}") from None
    if len(message.entity) > MAX_ENTITIES:
        raise FormatError(f"got {len(message.entity):,} entities; expected at most {MAX_ENTITIES:,}. Split the feed.")
    for entity in message.entity:  # a trip update costs a hundred times a vehicle
        for field, _ in entity.ListFields():
            if field.name not in parts:
                entity.ClearField(field.name)
    content = {"entity": []} | MessageToDict(message, preserving_proto_field_name=True)  # it leaves empty lists out
    for entity in content["entity"]:
        if entity.get("vehicle", {}).get("timestamp") == "0":  # of a producer that writes every field
            del entity["vehicle"]["timestamp"]
    return json.dumps(_finite(content)).encode()


def _finite(value: Any) -> Any:
    """Replaces NaN and infinite numbers, which protobuf writes as words, by null."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if value in ("NaN", "Infinity", "-Infinity") else value
