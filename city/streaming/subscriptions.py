"""The bridge's MQTT session at the broker: its id, and its subscriptions, which end when no contract has them."""

import json
import logging
import secrets
from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from city.settings import Settings

log = logging.getLogger(__name__)

_MOST_LEVELS = 7


class Subscriptions:
    """The subscriptions of one MQTT session, by filter. The file at `path` has the filters of earlier sessions.

    `subscribed` returns the filter to subscribe to for the filter of a topic: a shared one has a prefix.
    """

    def __init__(self, filters: Collection[str], path: Path, subscribed: Callable[[str], str] = str) -> None:
        self._topics, self._path = filters, path
        self._filters = [subscribed(topic) for topic in filters]
        self._unsubscribed: set[str] = set()
        self.refused: str | None = None
        """The error of the last subscription; None where the broker accepted it."""

    def subscribe(self, client: mqtt.Client) -> None:
        """Subscribes to all filters, and ends the subscriptions of filters that no contract has any more."""
        client.subscribe([(topic, 1) for topic in self._filters])
        self._drop_old(client)

    def on_subscribe(
        self,
        client: mqtt.Client,
        data: object,
        mid: int,
        codes: Sequence[ReasonCode],
        properties: Properties | None,
    ) -> None:
        """Notes whether the broker accepted a subscription; the client's callback."""
        refused = [str(code) for code in codes if code.is_failure]
        self.refused = None
        if refused:
            topics = ", ".join(topic for topic, code in zip(self._filters, codes, strict=False) if code.is_failure)
            self.refused = (
                f"the MQTT broker refuses a subscription to {topics} ({', '.join(dict.fromkeys(refused))}): let its "
                "ACL permit it to the user of CITY_MQTT_USERNAME"
            )

    def unsubscribe_all(self, client: mqtt.Client, topic: str) -> None:
        """Ends the subscription that delivered a topic of no contract.

        Only the broker knows which filter delivered it, so the bridge unsubscribes from every filter that matches.
        """
        levels = topic.split("/")
        if len(levels) > _MOST_LEVELS:
            return
        declared = set(self._topics)
        candidates = [f for f in filters_of(levels) if f not in declared and f not in self._unsubscribed]
        if candidates:
            self._unsubscribed.update(candidates)
            client.unsubscribe(candidates)

    def _drop_old(self, client: mqtt.Client) -> None:
        """Ends the subscriptions of an earlier bridge that no contract has any more."""
        try:
            earlier = json.loads(self._path.read_text())
        except (OSError, ValueError):  # no file, or a crash left half of it; `unsubscribe_all` covers that case too
            earlier = []
        if gone := [topic for topic in earlier if topic not in self._filters]:
            client.unsubscribe(gone)
            log.info("unsubscribed from %s, which no contract uses any more", ", ".join(gone))
        if sorted(earlier) != sorted(self._filters):
            try:
                _replace_file(self._path, json.dumps(sorted(self._filters)))
            except OSError as error:
                log.warning("cannot write %s: %s", self._path, error)


def client_id(config: Settings) -> str:
    """Returns the id by which the broker knows the bridge: of this installation, where others may use the broker."""
    if config.mqtt_client_id or config.mqtt_address is None:
        return config.mqtt_client_id or "city-bridge"
    path = config.home / "bridge" / "client-id"
    known = path.read_text().strip() if path.exists() else ""
    if known:
        return known
    created = f"city-bridge-{secrets.token_hex(4)}"
    _replace_file(path, created)
    return created


def filters_of(levels: Sequence[str]) -> list[str]:
    """Returns every MQTT filter that matches the topic of these levels."""
    filters = []
    for size in range(len(levels) + 1):
        for places in combinations(range(len(levels)), size):
            filters.append("/".join("+" if n in places else level for n, level in enumerate(levels)))
    for depth in range(len(levels) + 1):
        for size in range(depth + 1):
            for places in combinations(range(depth), size):
                head = ["+" if n in places else level for n, level in enumerate(levels[:depth])]
                filters.append("/".join([*head, "#"]))
    return filters


def _replace_file(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(content)
    fresh.replace(path)
