"""Generates the reference page of the contracts (docs/contracts.md), which `city docs` writes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from city.contracts.model import MACHINE_ZONE, Contract, Field
from city.contracts.registry import Domain
from city.contracts.validity import span, words

_HEAD = (
    "# Contracts\n\nGenerated from `city_assets/*/contract.py` by `city docs`. A test fails when it is out of date.\n"
)


def page(domains: Iterable[Domain], sources: Mapping[str, Sequence[str]]) -> str:
    """Returns the whole page, as Markdown. `sources` are the names of each contract's sources, by its name."""
    parts = [_HEAD]
    for domain in domains:
        parts.append(f"\n## {domain.name}\n")
        for contract in domain.contracts:
            parts += _describe_contract(contract, sources.get(contract.name, ()))
    return "\n".join(parts).rstrip() + "\n"


def _describe_contract(contract: Contract, sources: Sequence[str]) -> Iterator[str]:
    yield f"### {contract.name}\n\n{contract.description}\n"
    mqtt = f", MQTT topic `{contract.mqtt}`" if contract.mqtt else ""
    yield (
        f"Kafka topic `{contract.topic}` (JSON, key `{contract.key}`, event time `{contract.event_time}`){mqtt}, "
        f"version {contract.version}, {contract.rate} rate. Rejected: events more than {words(contract.max_ahead)} "
        f"ahead of or {words(contract.max_age)} behind their arrival, messages above {contract.max_bytes:,} bytes, "
        f"fields not listed here. QuestDB keeps {words(contract.ttl)}.\n"
    )
    if sources:
        links = ", ".join(f"[{name}](sources.md#{name})" for name in sources)
        yield f"Messages of other shapes become its events by these sources: {links}.\n"
    yield "| field | type | unit | valid | null | description |\n| --- | --- | --- | --- | --- | --- |"
    for field in contract.fields:
        null = "yes" if field.nullable else "no"
        name = f"{field.within}.{field.name}" if field.within else field.name
        yield f"| {name} | {field.kind} | {field.unit or ''} | {_valid_values(field)} | {null} | {field.description} |"
    for cell in contract.cells:
        derived = f"derived from {cell.latitude}, {cell.longitude}"
        yield f"| *{cell.name}* | string | | H3 resolution {cell.resolution} | no | {derived} |"
    if quantities := contract.quantities:
        yield f"\n| {quantities.by} | {quantities.unit} | {quantities.value} | description |\n| --- | --- | --- | --- |"
        for q in quantities.choices:
            yield f"| {q.name} | {q.unit} | {q.minimum:g} to {q.maximum:g} | {q.description} |"
    for rule in contract.rules:
        yield f"\nRule **{rule.name}**: {rule.description} (`{rule.sql}`)."
    for window in contract.windows:
        columns = ", ".join(f"`{a.name}`" for a in window.aggregates)
        topic = f", and Kafka topic `{window.topic}`" if window.topic else ""
        yield (
            f"\nWindow **{window.name}**: {window.description} Every {words(window.every)} by `{window.by}` "
            f"where `{window.where}`: {columns}; late events change it for {words(window.lateness)}. "
            f"QuestDB table `{window.name}`{topic}."
        )
    yield ""


def _valid_values(field: Field) -> str:
    if field.zone != "UTC":
        return f"without a zone, it is that of {'the machine' if field.zone == MACHINE_ZONE else field.zone}"
    if field.choices:
        return ", ".join(field.choices)
    if field.minimum is not None or field.maximum is not None:
        return span(field.minimum, field.maximum, None)
    return f"`{field.pattern}`" if field.pattern else ""
