"""Writes feeds of GTFS-realtime for tests."""


def json_to_feed(content: str) -> bytes:
    """Returns the feed of a FeedMessage in JSON."""
    from google.protobuf.json_format import Parse
    from google.transit.gtfs_realtime_pb2 import FeedMessage

    feed: bytes = Parse(content, FeedMessage()).SerializeToString()
    return feed
