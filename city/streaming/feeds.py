"""Fetches the feeds that sources read by URL, such as vehicle positions in GTFS-realtime."""

import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import requests

from city.settings import Settings
from city.sources.model import Source
from city.sources.registry import feeds_of
from city.stack.worker import Worker
from city.streaming.heartbeat import Heartbeat
from city.streaming.source_carrier import Carrier
from city.streaming.topics import MAX_MESSAGE_BYTES

_TIMEOUT = 20.0
_TURN_SECONDS = 0.5


class Feeds:
    """Fetches each URL of CITY_FEEDS every CITY_FEED_SECONDS. An event that the answer before had is left out."""

    def __init__(self, sources: Sequence[Source], config: Settings, heartbeat: Heartbeat) -> None:
        self._sources, self._config, self._heartbeat = feeds_of(sources, config), config, heartbeat
        self._seen: dict[str, tuple[dict[str, str], set[bytes]]] = {}
        """The validators of the last answer, and its events, by source."""

    @property
    def names(self) -> list[str]:
        """The sources that have a URL."""
        return list(self._sources)

    def run(self, worker: Worker) -> None:
        """Fetches until a stop is requested. A feed that fails does not keep the others from being read."""
        carrier = Carrier(self._config)
        try:
            due = 0.0
            while not worker.stop_requested.wait(_TURN_SECONDS):
                worker.progress()
                if time.monotonic() < due:
                    continue
                due = time.monotonic() + self._config.feed_seconds
                errors = [error for name in self._sources if (error := self._fetch(name, carrier))]
                worker.note("; ".join(errors) or None)
        finally:
            carrier.close()

    def _fetch(self, name: str, carrier: Carrier) -> str | None:
        """Fetches a feed and carries it. Returns why that was not possible, without the URL, which may have a key."""
        source, url = self._sources[name]
        validators, before = self._seen.get(name, ({}, set()))
        try:
            answer = requests.get(url, headers=validators | self._headers(name), timeout=_TIMEOUT)
        except requests.RequestException as error:
            return f"feed {name}: {urlsplit(url).hostname} does not answer ({type(error).__name__})"
        if answer.status_code == 304:
            return None
        if not answer.ok:
            return f"feed {name}: {urlsplit(url).hostname} answers HTTP {answer.status_code}"
        content = answer.content
        if len(content) > MAX_MESSAGE_BYTES:
            return f"feed {name}: {len(content):,} bytes, more than {MAX_MESSAGE_BYTES:,}"
        events = carrier.carry([source], [content], f"feed {name}", self._heartbeat, before)
        self._seen[name] = (_validators(answer.headers), events)
        return None

    def _headers(self, name: str) -> dict[str, str]:
        header = self._config.feed_headers.get(name)
        title, _, value = header.get_secret_value().partition(":") if header else ("", "", "")
        return {title.strip(): value.strip()} if title else {}


def _validators(headers: Mapping[str, str]) -> dict[str, str]:
    found = {"if-none-match": headers.get("etag"), "if-modified-since": headers.get("last-modified")}
    return {name: value for name, value in found.items() if value}
