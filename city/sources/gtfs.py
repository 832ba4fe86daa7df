"""Reads feeds of GTFS-realtime (protobuf) as JSON, with the names of its specification."""

import json


class FeedError(ValueError):
    """Reports bytes that are no feed."""


def feed_to_json(feed: bytes) -> bytes:
    """Returns a FeedMessage as JSON. Raises FeedError for bytes that are none."""
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError
    from google.transit.gtfs_realtime_pb2 import FeedMessage

    message = FeedMessage()
    try:
        message.ParseFromString(feed)
    except DecodeError:
        begin = feed.lstrip()[:1]
        hint = "; it looks like a web page or JSON" if begin in (b"<", b"{", b"[") else ""
        raise FeedError(f"{len(feed):,} bytes that are no FeedMessage of GTFS-realtime{hint}") from None
    return json.dumps(MessageToDict(message, preserving_proto_field_name=True)).encode()


def json_to_feed(content: str) -> bytes:
    """Returns the feed of a FeedMessage in JSON."""
    from google.protobuf.json_format import Parse
    from google.transit.gtfs_realtime_pb2 import FeedMessage

    feed: bytes = Parse(content, FeedMessage()).SerializeToString()
    return feed
