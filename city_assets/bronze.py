"""Bronze and quarantine as assets, derived from the contracts: what the stream writes, and what runs write."""

import threading
from typing import Any

import dagster as dg

from city.contracts.model import Contract
from city.contracts.registry import Domain
from city.lake import ORDER, locate
from city.lake.preview import latest
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.records import Batch, Offsets
from city.tables.model import Table
from city_assets import keys
from city_assets.preview import markdown
from resources.kafka import KafkaResource
from resources.lake import LakeResource

_PREVIEW_ROWS = 5
FIRST_DAY = Table.first_day


def stream_specs(domain: Domain) -> list[dg.AssetSpec]:
    """What the streaming job reads and writes for a domain: topics, bronze, quarantine, QuestDB tables."""
    specs = []
    for contract in domain.contracts:
        specs.append(_topic(domain, contract))
        if contract.rate == "low":
            continue
        bronze = keys.bronze(contract)
        specs += [_bronze(domain, contract), _quarantine(domain, contract)]
        specs.append(_derived(domain, keys.questdb(contract.name), "questdb", contract.means, bronze))
        specs += [_derived(domain, keys.questdb(w.name), "questdb", w.means, bronze) for w in contract.windows]
    return specs


def output_specs(domains: list[Domain]) -> list[dg.AssetSpec]:
    """The topics that several domains write to."""
    readers: dict[dg.AssetKey, set[dg.AssetKey]] = {}
    for contract in (c for d in domains for c in d.contracts if c.rate == "high"):
        for key in (keys.DASHBOARD, *(keys.topic(w.topic) for w in contract.windows if w.topic)):
            readers.setdefault(key, set()).add(keys.bronze(contract))
    return [dg.AssetSpec(key, deps=sorted(deps), group_name="live", kinds={"kafka"}) for key, deps in readers.items()]


class OffsetRange(dg.Config):
    """The next offset of each partition (its number, as a string) at which a run ends; all there is by default."""

    end: dict[str, int] = {}


def low_rate_asset(domain: Domain, contract: Contract) -> dg.AssetsDefinition:
    """Bronze and quarantine of a low-rate topic: a run appends an offset range; one that comes twice adds nothing."""
    specs = [_bronze(domain, contract), _quarantine(domain, contract)]

    @dg.multi_asset(name=f"ingest_{contract.name}", specs=specs)
    def ingest(config: OffsetRange, kafka: KafkaResource, lake: LakeResource) -> Any:
        end = {int(p): offset for p, offset in config.end.items()} or kafka.ends(contract.topic)
        report = ingest_range(contract, kafka, lake, end)
        yield dg.MaterializeResult(keys.bronze(contract), metadata=describe(lake, contract, "bronze", report))
        yield dg.MaterializeResult(keys.quarantine(contract), metadata=describe(lake, contract, "quarantine", {}))

    return ingest


def ingest_range(contract: Contract, kafka: KafkaResource, lake: LakeResource, end: Offsets) -> dict[str, Any]:
    """Appends what Kafka has from bronze's own position up to `end`, by the stream's commit protocol."""
    stream = BronzeStream(lake.root, contract)
    start = stream.load(sorted(end))
    raw = kafka.read(contract.topic, start, end)
    if not raw.end:
        return {"appended": 0}
    rows, rejects = decode(contract, raw, stream.watermarks)
    stream.commit(Batch(rows, raw.start, raw.end), rejects, {}, threading.Event(), lambda reason: None)
    return {
        "appended": rows.height,
        "rejected": rejects.height,
        "offsets": dg.MetadataValue.json(_offsets(raw.start, raw.end)),
    }


def describe(lake: LakeResource, contract: Contract, layer: str, report: dict[str, Any]) -> dict[str, Any]:
    """A table's metadata for the UI: rows, files, version, the newest rows, and what the caller reports."""
    found = latest(locate(lake.root, layer, contract.name), _PREVIEW_ROWS, ORDER[layer])
    preview = dg.MetadataValue.md(markdown(found.frame)) if found.frame.height else "empty"
    return {"dagster/row_count": found.rows, "files": found.files, "version": found.version, "newest": preview} | report


def _offsets(start: Offsets, end: Offsets) -> dict[str, list[int]]:
    return {str(p): [start[p], end[p]] for p in end}


def _topic(domain: Domain, contract: Contract) -> dg.AssetSpec:
    return dg.AssetSpec(
        keys.topic(contract.topic),
        group_name=domain.name,
        kinds={"kafka"},
        description=contract.means,
        metadata={"topic": contract.topic, "contract_version": contract.version},
    )


def _bronze(domain: Domain, contract: Contract) -> dg.AssetSpec:
    return dg.AssetSpec(
        keys.bronze(contract),
        deps=[keys.topic(contract.topic)],
        group_name=domain.name,
        kinds={"deltalake", "bronze"},
        partitions_def=keys.days(FIRST_DAY) if contract.rate == "high" else None,
        description=f"{contract.means} Every valid event of `{contract.topic}`, exactly once.",
        metadata={"dagster/column_schema": keys.bronze_columns(contract)},
    )


def _quarantine(domain: Domain, contract: Contract) -> dg.AssetSpec:
    return dg.AssetSpec(
        keys.quarantine(contract),
        deps=[keys.topic(contract.topic)],
        group_name=domain.name,
        kinds={"deltalake"},
        description=f"What `{contract.topic}` brought and its contract rejects: the raw message and every reason.",
        metadata={"dagster/column_schema": keys.quarantine_columns()},
    )


def _derived(domain: Domain, key: dg.AssetKey, kind: str, means: str, bronze: dg.AssetKey) -> dg.AssetSpec:
    return dg.AssetSpec(key, deps=[bronze], group_name=domain.name, kinds={kind}, description=means)
