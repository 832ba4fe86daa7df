"""Reads feeds of GTFS-realtime (protobuf) as JSON, with the names of its specification."""

import json
from typing import Any

from city.sources.model import FormatError


def feed_to_json(feed: bytes) -> bytes:
    """Returns a FeedMessage as JSON. Raises FormatError for bytes that are none."""
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
        hint = "; it looks like a web page or JSON" if begin in (b"<", b"{", b"[") else ""
        raise FormatError(f"{len(feed):,} bytes that are no FeedMessage of GTFS-realtime{hint}") from None
    content = {"entity": []} | MessageToDict(message, preserving_proto_field_name=True)  # it leaves empty lists out
    for entity in content["entity"]:
        if entity.get("vehicle", {}).get("timestamp") == "0":  # of a producer that writes every field
            del entity["vehicle"]["timestamp"]
    return json.dumps(_finite(content)).encode()


def _finite(value: Any) -> Any:
    """Returns the content with null in place of numbers that are none, which protobuf gives as words."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if value in ("NaN", "Infinity", "-Infinity") else value


def json_to_feed(content: str) -> bytes:
    """Returns the feed of a FeedMessage in JSON."""
    from google.protobuf.json_format import Parse
    from google.transit.gtfs_realtime_pb2 import FeedMessage

    feed: bytes = Parse(content, FeedMessage()).SerializeToString()
    return feed
