"""Fetches the feeds that sources read by URL, such as vehicle positions in GTFS-realtime."""

import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import requests
from confluent_kafka import KafkaException

from city.settings import Settings
from city.sources.model import Source
from city.sources.registry import feeds_of
from city.stack.worker import Worker
from city.streaming.heartbeat import Heartbeat
from city.streaming.source_carrier import Carried, Carrier
from city.streaming.topics import MAX_MESSAGE_BYTES

_TIMEOUT = 20.0
_TURN_SECONDS = 0.5


class Feeds:
    """Fetches each URL of CITY_FEEDS every CITY_FEED_SECONDS. An event that the answer before had is left out."""

    def __init__(self, sources: Sequence[Source], config: Settings, heartbeat: Heartbeat) -> None:
        self._sources, self._config, self._heartbeat = feeds_of(sources, config), config, heartbeat
        self._seen: dict[str, tuple[dict[str, str], Carried]] = {}
        """The validators of the last answer, and what it became, by source."""

    @property
    def names(self) -> list[str]:
        """The sources that have a URL."""
        return list(self._sources)

    def run(self, worker: Worker) -> None:
        """Fetches until a stop is requested. A feed that fails does not keep the others from being read."""
        carrier = Carrier(self._config)
        try:
            carrier.prepare(source for source, _ in self._sources.values())
            due = 0.0
            while not worker.stop_requested.wait(_TURN_SECONDS):
                worker.progress()
                if time.monotonic() < due:
                    continue
                due = time.monotonic() + self._config.feed_seconds
                errors = [error for name in self._sources if (error := self._fetch(name, carrier))]
                worker.note("; ".join(errors) or None)
        except KafkaException as error:
            told = self._config.kafka.explain(error.args[0])
            raise ConnectionError(f"Kafka at {self._config.kafka}: {told}") from error
        finally:
            carrier.close()

    def _fetch(self, name: str, carrier: Carrier) -> str | None:
        """Fetches a feed and carries it. Returns why that was not possible, without the URL, which may have a key."""
        source, url = self._sources[name]
        validators, before = self._seen.get(name, ({}, None))
        host = urlsplit(url).hostname
        try:
            # A redirection would take the header with the key to another host.
            headers = validators | self._headers(name)
            with requests.get(url, headers=headers, timeout=_TIMEOUT, allow_redirects=False, stream=True) as answer:
                if answer.status_code == 304:
                    return _explain(name, host, before)
                if answer.is_redirect:
                    return f"feed {name}: {host} redirects: give the address that it redirects to"
                if not answer.ok:
                    return f"feed {name}: {host} answers HTTP {answer.status_code}"
                content = _read(answer)
                found = _validators(answer.headers)
        except requests.RequestException as error:
            return f"feed {name}: {host} does not answer ({type(error).__name__})"
        if content is None:
            return f"feed {name}: {host} sends more than {MAX_MESSAGE_BYTES:,} bytes"
        carried = carrier.carry([source], [content], f"feed {name}", self._heartbeat, before)
        self._seen[name] = found, carried
        return _explain(name, host, carried)

    def _headers(self, name: str) -> dict[str, str]:
        header = self._config.feed_headers.get(name)
        title, _, value = header.get_secret_value().partition(":") if header else ("", "", "")
        return {title.strip(): value.strip()} if title else {}


def _explain(name: str, host: str | None, carried: Carried | None) -> str | None:
    """Returns why nothing of an answer became an event; None where something did, or where it was empty."""
    if carried is None or carried.events or not carried.reasons:
        return None
    return f"feed {name}: {host} sends nothing that the source takes ({carried.reasons[0][0]}): check its URL"


def _read(answer: requests.Response) -> bytes | None:
    """Reads an answer, unpacked; None where it is too large."""
    content = b""
    for part in answer.iter_content(65_536):
        content += part
        if len(content) > MAX_MESSAGE_BYTES:
            return None
    return content


def _validators(headers: Mapping[str, str]) -> dict[str, str]:
    found = {"if-none-match": headers.get("etag"), "if-modified-since": headers.get("last-modified")}
    return {name: value for name, value in found.items() if value}
