"""Decides for each message which of several sources it belongs to, and what it becomes. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from city.contracts.model import Contract
from city.sources.extract import ROW
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
        mapped = map_messages(source, *asked, zone, arrived)
        taken = {*range(len(rest))} - {*mapped.ignored}
        for row in taken:
            found[rest[row]] = Outcome(source.name, reasons=mapped.rejected.get(row, []))
        for row, event in _events(source.contract, mapped.events):
            found[rest[row]].events.append(event)
        rest = [message for row, message in enumerate(rest) if row not in taken]
    for message in rest:
        names = ", ".join(source.name for source in sources)
        found[message].reasons = [f"message: of no kind that a source takes ({names})"]
    return found


def _events(contract: Contract, events: pl.DataFrame) -> Iterator[tuple[int, Event]]:
    keys = events[contract.key].to_list()
    messages = to_json(contract, events.drop(ROW))
    for row, key, message in zip(events[ROW].to_list(), keys, messages, strict=True):
        yield row, Event(contract, key.encode(), message)
