"""Fetches the feeds that sources read by URL, such as vehicle positions in GTFS-realtime."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import requests
from confluent_kafka import KafkaException

from city.settings import Settings
from city.sources.model import Source
from city.sources.registry import feeds_of
from city.stack.worker import Worker
from city.streaming.heartbeat import Heartbeat
from city.streaming.source_carrier import Carrier, CarryResult
from city.streaming.topics import MAX_MESSAGE_BYTES

_READ_SECONDS, _ANSWER_SECONDS = 10.0, 20.0
"""The longest wait for a part of an answer, and for the whole of it: a slow feed must not hold the others."""
_TURN_SECONDS = 0.5


@dataclass(frozen=True)
class _Seen:
    """The last answer of a feed: its validators, the digest of its content, and what it became."""

    validators: Mapping[str, str] = field(default_factory=dict)
    digest: bytes = b""
    result: CarryResult | None = None


class Feeds:
    """Fetches each URL of CITY_FEEDS every CITY_FEED_SECONDS.

    An answer equal to the one before is left out, and so is an event that the one before had.
    """

    def __init__(self, sources: Sequence[Source], config: Settings, heartbeat: Heartbeat) -> None:
        self._sources, self._config, self._heartbeat = feeds_of(sources, config), config, heartbeat
        self._carrier = Carrier(config)
        self._seen: dict[str, _Seen] = {}
        """What the last answer of each source was."""

    @property
    def names(self) -> list[str]:
        """The sources that have a URL."""
        return list(self._sources)

    def run(self, worker: Worker) -> None:
        """Fetches until a stop is requested. A feed that fails does not keep the others from being read."""
        try:
            self._carrier.open(source for source, _ in self._sources.values())
            due = 0.0
            while not worker.stop_requested.wait(_TURN_SECONDS):
                worker.progress()
                if time.monotonic() < due:
                    continue
                due = time.monotonic() + self._config.feed_seconds
                errors = []
                for name in self._sources:
                    errors += [error] if (error := self._fetch(name)) else []
                    worker.progress()
                worker.note("; ".join(errors) or None)
        except KafkaException as error:
            cause = self._config.kafka.explain(error.args[0])
            raise ConnectionError(f"Kafka at {self._config.kafka}: {cause}") from error
        finally:
            self._carrier.close()

    def _fetch(self, name: str) -> str | None:
        """Fetches a feed and carries it. Returns why that was not possible, without the URL, which may have a key."""
        source, url = self._sources[name]
        seen = self._seen.get(name, _Seen())
        host = urlsplit(url).hostname
        ends = time.monotonic() + _ANSWER_SECONDS
        try:
            # A redirection would take the header with the key to another host.
            headers = {**seen.validators, **self._headers(name)}
            with requests.get(
                url, headers=headers, auth=_keep_headers, timeout=_READ_SECONDS, allow_redirects=False, stream=True
            ) as answer:
                if answer.status_code == 304:
                    return _explain(name, host, seen.result)
                if answer.is_redirect:
                    return f"feed {name}: {host} redirects: give the address that it redirects to"
                if not answer.ok:
                    return f"feed {name}: {host} answers HTTP {answer.status_code}"
                content = _read(answer, ends)
                validators = _validators(answer.headers)
        except requests.RequestException as error:
            return f"feed {name}: {host} does not answer ({type(error).__name__})"
        if content is None:
            return f"feed {name}: {host} sends more than {MAX_MESSAGE_BYTES:,} bytes"
        digest = hashlib.sha256(content).digest()
        result = seen.result
        if digest != seen.digest:
            result = self._carrier.carry([source], [content], f"feed {name}", self._heartbeat, result)
        self._seen[name] = _Seen(validators, digest, result)
        return _explain(name, host, result)

    def _headers(self, name: str) -> dict[str, str]:
        header = self._config.feed_headers.get(name)
        title, _, value = header.get_secret_value().partition(":") if header else ("", "", "")
        return {title.strip(): value.strip()} if title else {}


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Returns the request as it is. Without an `auth`, requests would take a login from ~/.netrc."""
    return request


def _explain(name: str, host: str | None, result: CarryResult | None) -> str | None:
    """Returns why nothing of an answer became an event; None where something did, or where it was empty."""
    if result is None or result.events or not result.reasons:
        return None
    return f"feed {name}: {host} sends nothing that the source takes ({result.reasons[0][0]}): check its URL"


def _read(answer: requests.Response, ends: float) -> bytes | None:
    """Reads an answer, unpacked; None where it is too large. Raises Timeout where it is not whole when time `ends`."""
    content = bytearray()
    for part in answer.iter_content(65_536):
        content += part
        if len(content) > MAX_MESSAGE_BYTES:
            return None
        if time.monotonic() > ends:
            raise requests.Timeout
    return bytes(content)


def _validators(headers: Mapping[str, str]) -> dict[str, str]:
    validators = {"if-none-match": headers.get("etag"), "if-modified-since": headers.get("last-modified")}
    return {name: value for name, value in validators.items() if value}
