"""Decides for each message which of several sources it belongs to, and what it becomes. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl
from polars.exceptions import PanicException

from city.contracts.model import Contract
from city.sources.extract import ROW, Reasons
from city.sources.mapping import map_messages, to_json
from city.sources.model import Source


@dataclass(frozen=True)
class Event:
    """An event as a message of its contract's Kafka topic."""

    contract: Contract
    key: bytes
    message: bytes


@dataclass
class Outcome:
    """What became of a message: events, reasons against what is none, or both. `source` is the one that took it."""

    source: str | None = None
    events: list[Event] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def outcomes(
    sources: Sequence[Source], payloads: Sequence[bytes], topics: Sequence[str], zone: str, arrived: datetime
) -> list[Outcome]:
    """Maps messages that may belong to any of the sources, which are asked in their order.

    A message belongs to the first source whose `when` it fulfils. `topics` are the MQTT topics of the messages (or
    none, where no source names a part of them), `zone` is the city's, and `arrived` is when they arrived.
    """
    found = [Outcome() for _ in payloads]
    rest = list(range(len(payloads)))
    for source in sources:
        asked = [payloads[n] for n in rest], [topics[n] for n in rest] if topics else ()
        mapped = _map(source, *asked, zone, arrived)
        taken = {*range(len(rest))} - {*mapped.ignored}
        for row in taken:
            found[rest[row]] = Outcome(source.name, reasons=mapped.rejected.get(row, []))
        for row, event in mapped.events:
            found[rest[row]].events.append(event)
        rest = [message for row, message in enumerate(rest) if row not in taken]
    for message in rest:
        names = ", ".join(source.name for source in sources)
        found[message].reasons = [f"message: of no kind that a source takes ({names})"]
    return found


def _map(
    source: Source, payloads: Sequence[bytes], topics: Sequence[str], zone: str, arrived: datetime
) -> "MappedEvents":
    """Maps messages together; one by one where that fails, so that a message that nobody thought of is only itself."""
    try:
        mapped = map_messages(source, payloads, topics, zone, arrived)
        return MappedEvents(list(_events(source.contract, mapped.events)), mapped.rejected, mapped.ignored)
    except (Exception, PanicException) as error:
        if len(payloads) == 1:
            told = f"message: cannot be mapped: {type(error).__name__}: {str(error)[:200]}"
            return MappedEvents([], {0: [told]}, [])
    found = MappedEvents([], {}, [])
    for row, payload in enumerate(payloads):
        alone = _map(source, [payload], topics[row : row + 1], zone, arrived)
        found.events.extend((row, event) for _, event in alone.events)
        if alone.rejected:
            found.rejected[row] = alone.rejected[0]
        found.ignored.extend(row for _ in alone.ignored)
    return found


@dataclass
class MappedEvents:
    """What became of messages: each event with the index of its message, the reasons, and what is not of the source."""

    events: list[tuple[int, Event]]
    rejected: Reasons
    ignored: list[int]


def _events(contract: Contract, events: pl.DataFrame) -> Iterator[tuple[int, Event]]:
    keys = events[contract.key].to_list()
    messages = to_json(contract, events.drop(ROW))
    for row, key, message in zip(events[ROW].to_list(), keys, messages, strict=True):
        yield row, Event(contract, key.encode(), message)
