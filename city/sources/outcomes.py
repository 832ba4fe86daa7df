"""Maps each message by the first of several sources that it belongs to. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl
from polars.exceptions import PanicException

from city.contracts.model import Contract
from city.sources.mapping import map_messages, to_json
from city.sources.model import Source
from city.sources.rows import ROW, Reasons


@dataclass(frozen=True)
class Event:
    """An event as a message of its contract's Kafka topic."""

    contract: Contract
    key: bytes
    message: bytes


@dataclass
class MessageResult:
    """The events of a message, and the reasons against it; it may have both. `source` is the one that it belongs to."""

    source: str | None = None
    events: list[Event] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def outcomes(
    sources: Sequence[Source], payloads: Sequence[bytes], topics: Sequence[str], zone: str, arrived: datetime
) -> list[MessageResult]:
    """Maps messages that may belong to any of the sources, which are tried in order.

    A message belongs to the first source whose `when` it fulfils. `topics` are the MQTT topics of the messages (or
    none, where no source names a part of them), `zone` is the city's, and `arrived` is when they arrived.
    """
    results = [MessageResult() for _ in payloads]
    remaining = list(range(len(payloads)))
    for source in sources:
        remaining_topics = [topics[n] for n in remaining] if topics else ()
        mapped = _map(source, [payloads[n] for n in remaining], remaining_topics, zone, arrived)
        ignored = {*mapped.ignored}
        for row, message in enumerate(remaining):
            if row not in ignored:
                results[message] = MessageResult(source.name, reasons=mapped.rejected.get(row, []))
        for row, event in mapped.events:
            results[remaining[row]].events.append(event)
        remaining = [remaining[row] for row in mapped.ignored]
    names = ", ".join(source.name for source in sources)
    for message in remaining:
        results[message].reasons = [f"message: of no kind that a source takes ({names})"]
    return results


@dataclass
class MappedMessages:
    """The events with the index of their message, the reasons, and the messages that are not of the source."""

    events: list[tuple[int, Event]]
    rejected: Reasons
    ignored: list[int]


def _map(
    source: Source, payloads: Sequence[bytes], topics: Sequence[str], zone: str, arrived: datetime
) -> MappedMessages:
    """Maps messages together. If that fails, maps each half, so that one faulty message rejects only itself."""
    try:
        mapped = map_messages(source, payloads, topics, zone, arrived)
        return MappedMessages(list(_events(source.contract, mapped.events)), mapped.rejected, mapped.ignored)
    except (Exception, PanicException) as error:
        if len(payloads) == 1:
            reason = f"message: cannot be mapped: {type(error).__name__}: {str(error)[:200]}"
            return MappedMessages([], {0: [reason]}, [])
    middle = len(payloads) // 2
    first = _map(source, payloads[:middle], topics[:middle], zone, arrived)
    second = _map(source, payloads[middle:], topics[middle:], zone, arrived)
    return MappedMessages(
        first.events + [(middle + row, event) for row, event in second.events],
        first.rejected | {middle + row: reasons for row, reasons in second.rejected.items()},
        first.ignored + [middle + row for row in second.ignored],
    )


def _events(contract: Contract, events: pl.DataFrame) -> Iterator[tuple[int, Event]]:
    keys = events[contract.key].to_list()
    messages = to_json(contract, events.drop(ROW))
    for row, key, message in zip(events[ROW].to_list(), keys, messages, strict=True):
        yield row, Event(contract, key.encode(), message)
