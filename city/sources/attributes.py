"""Turns messages of one attribute each into objects: the last level of the MQTT topic is the attribute's name. Pure."""

import json
from collections.abc import Sequence

from city.sources.model import Source


def as_objects(source: Source, payloads: Sequence[bytes], topics: Sequence[str]) -> tuple[list[bytes], list[str]]:
    """Returns the messages with each bare value as an object of one attribute, and their topics without its level.

    So `21.5` at `zigbee2mqtt/kitchen/temperature` becomes `{"temperature": 21.5}` at `zigbee2mqtt/kitchen`. A bare text
    has no quotes. Objects and lists, and what looks like the beginning of one, stay as they are.
    """
    least_levels = (source.mqtt or "").count("/") + 1
    objects, devices = list(payloads), list(topics)
    for number, (payload, topic) in enumerate(zip(payloads, topics, strict=True)):
        device, _, name = topic.rpartition("/")
        if payload.lstrip()[:1] not in (b"{", b"[") and device.count("/") + 1 >= least_levels:
            objects[number], devices[number] = b"{%b: %b}" % (json.dumps(name).encode(), _value(payload)), device
    return objects, devices


def _value(payload: bytes) -> bytes:
    """Returns a bare value as JSON: a number, boolean or null as it is, and anything else as a text."""
    try:
        return json.dumps(json.loads(payload), allow_nan=False).encode()
    except ValueError:  # also of NaN, which is no number of JSON
        return json.dumps(payload.decode(errors="replace")).encode()
