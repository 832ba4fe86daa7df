"""Lists the sources of all domains, which each domain declares as SOURCES in its sources.py."""

from collections.abc import Iterable, Sequence

from city.contracts.registry import contracts, domains
from city.settings import Settings
from city.sources.model import Source, SourceError


def sources(config: Settings) -> list[Source]:
    """Lists the sources of the active domains. Raises SourceError where two have one name, or share a Kafka topic."""
    modules = [domain.module("sources") for domain in domains(config) if config.is_active(domain.name)]
    declared: list[Source] = [source for module in modules if module is not None for source in module.SOURCES]
    _check_unique("name", (source.name for source in declared))
    _check_unique("Kafka topic", (source.kafka for source in declared if source.kafka))
    topics = {contract.topic for contract in contracts(config)}
    for source in declared:
        if source.kafka in topics:
            raise SourceError(f"source {source.name!r}: {source.kafka!r} is the topic of a contract; map another topic")
    return declared


def names_by_contract(sources: Iterable[Source]) -> dict[str, list[str]]:
    """Returns the names of sources by the name of the contract that they become events of."""
    by_contract: dict[str, list[str]] = {}
    for source in sources:
        by_contract.setdefault(source.contract.name, []).append(source.name)
    return by_contract


def source_of(name: str, config: Settings) -> Source:
    """Returns the source of that name. Raises SourceError that lists the known sources."""
    known = {source.name: source for source in sources(config)}
    if name not in known:
        raise SourceError(f"no source {name!r}; known: {', '.join(sorted(known))}")
    return known[name]


def feeds_of(sources: Sequence[Source], config: Settings) -> dict[str, tuple[Source, str]]:
    """Returns the sources that have a URL in CITY_FEEDS, and the URL. Raises SourceError for one without a source."""
    known = {source.name: source for source in sources}
    feeds = {name: url.get_secret_value() for name, url in config.feeds.items()}
    if unknown := sorted(set(feeds) - set(known)):
        raise SourceError(f"CITY_FEEDS names {', '.join(unknown)}; known sources: {', '.join(sorted(known))}")
    if without := sorted(set(config.feed_headers) - set(feeds)):
        raise SourceError(f"CITY_FEED_HEADERS names {', '.join(without)}, without a URL in CITY_FEEDS")
    for name in feeds:
        if known[name].needs_topic:
            raise SourceError(f"CITY_FEEDS: source {name!r} reads a part of its MQTT topic {known[name].mqtt!r}")
    return {name: (known[name], url) for name, url in feeds.items()}


def _check_unique(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SourceError(f"{kind} {name!r} is declared by two sources: rename one of them")
        seen.add(name)
