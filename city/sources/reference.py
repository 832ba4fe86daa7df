"""Generates the reference page of the sources (docs/sources.md), which `city docs` writes."""

from collections.abc import Iterable, Iterator

from city.contracts.model import MACHINE_ZONE
from city.sources.bodies import PROTOBUF
from city.sources.model import CITY_ZONE, EPOCHS, Always, Arrived, At, Joined, Part, Source, Value

_HEAD = """# Sources

Generated from `city_assets/*/sources.py` by `city docs`. A test fails when it is out of date.

A source maps messages of another shape to events of a contract. They arrive on MQTT, on a Kafka topic, at
`POST /ingest/<source>`, or are fetched every CITY_FEED_SECONDS from a URL of CITY_FEEDS (`{"<source>": "https://…"}`).
Each message becomes one or more events. In an MQTT topic, `<device>` is a level, and `<device#>` the rest of the topic.
Rejected messages are stored in `quarantine/mqtt`: the reasons and the first
64 KiB. The response to a POST has the reasons, and its rejected messages are not stored. A wrong item of a list, or a
wrong measure of a message, does not affect the others. A message that repeats a key that its source reads is rejected.
"""
_TABLE = "| source | events | arrives at | what it is |\n| --- | --- | --- | --- |"


def page(sources: Iterable[Source]) -> str:
    """Returns the whole page, as Markdown."""
    known = list(sources)
    lines = [_HEAD, _TABLE]
    lines += [f"| [{s.name}](#{s.name}) | `{s.contract.name}` | {_arrival(s)} | {s.description} |" for s in known]
    for source in known:
        lines += _describe_source(source)
    return "\n".join(lines).rstrip() + "\n"


def _arrival(source: Source) -> str:
    topic = [f"MQTT `{source.mqtt}`"] if source.mqtt else []
    topic += [f"Kafka `{source.kafka}`"] if source.kafka else []
    return ", ".join([*topic, *([] if source.needs_topic else [f"`POST /ingest/{source.name}`"])])


def _describe_source(source: Source) -> Iterator[str]:
    yield f"\n## {source.name}\n\n{source.description} Documentation: {source.documentation}\n"
    for path, words in source.when.items():
        yield f"Only messages whose `{path}` is {' or '.join(repr(word) for word in words)}.\n"
    if source.ignored_topics:
        yield f"Messages of these topics are left out: `{source.ignored_topics}`.\n"
    if source.has_attribute_topics:
        yield "A message may also be the bare value of one attribute, named by the last level of its topic.\n"
    if source.items:
        yield f"Each item of `{source.items}` is an event.\n"
    if source.accepts:
        yield f"It accepts, beyond strict JSON: {', '.join(sorted(source.accepts))}.\n"
    yield "| field | from |\n| --- | --- |"
    for name, value in source.fields.items():
        yield f"| {name} | {_origin(value)} |"
    for name, value in source.names.items():
        yield f"| {{{name}}} | {_origin(value)} |"
    for name, value in source.measures.items():
        yield f"| a reading of {name} ({source.unit_of(name)}) | {_origin(value)} |"
    if source.format == "gtfs_realtime":
        yield f"\nMessages are protobuf: POST them as `{PROTOBUF}`. Decoded, a message is:"
    yield f"\n```json\n{source.sample}\n```"


def _origin(value: Value) -> str:
    if isinstance(value, At):
        origin = " or ".join(f"`{path}`" for path in value.path.split("|"))
    elif isinstance(value, Part):
        origin = f"`<{value.name}>` of the MQTT topic"
    elif isinstance(value, Arrived):
        origin = "the time of its arrival"
    elif isinstance(value, Joined):
        origin = f"`{value.template}`"
    else:
        assert isinstance(value, Always)
        origin = f"always `{value.value}`"
    parts = [origin]
    if value.unit:
        parts.append(f"in {value.unit}")
    if isinstance(value, At) and value.unit_at:
        parts.append(f"or in the unit of `{value.unit_at}`")
    if value.form != "iso":
        parts.append(f"{EPOCHS[value.form][1]} since 1970")
    if value.zone != "UTC":
        zone = {CITY_ZONE: "`CITY_TIMEZONE`", MACHINE_ZONE: "that of the machine"}.get(value.zone, value.zone)
        parts.append(f"without an offset in {zone}")
    if value.words:
        parts.append(", ".join(f"{word} → {meaning}" for word, meaning in value.words.items()))
    if value.skips:
        parts.append("without it no event")
    if value.default is not None:
        parts.append(f"else {'the time of its arrival' if value.default == 'arrived' else value.default}")
    return ", ".join(parts)
