"""The bronze and quarantine assets, derived from the contracts.

The stream writes the tables of high-rate topics. Dagster runs write those of low-rate topics.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl

from city.contracts.model import Contract
from city.contracts.registry import Domain
from city.contracts.schema import TIMESTAMP
from city.lake import ORDER, locate
from city.lake.preview import preview_table
from city.settings import settings
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.records import Batch, Offsets
from city.streaming.report import local_days
from city_assets import keys
from city_assets.preview import Metadata, markdown
from resources.kafka import KafkaResource
from resources.lake import LakeResource

_PREVIEW_ROWS = 5


def stream_specs(domain: Domain) -> list[dg.AssetSpec]:
    """Returns the specs of a domain's topics, and of the tables that the streaming job writes for it."""
    specs = []
    for contract in domain.contracts:
        specs.append(_topic_spec(domain, contract))
        if contract.rate == "low":
            continue
        bronze = keys.bronze(contract)
        specs += [_bronze_spec(domain, contract), _quarantine_spec(domain, contract)]
        specs.append(_derived_spec(domain, keys.questdb(contract.name), "questdb", contract.description, bronze))
        specs += [
            _derived_spec(domain, keys.questdb(w.name), "questdb", w.description, bronze) for w in contract.windows
        ]
    return specs


def output_specs(domains: list[Domain]) -> list[dg.AssetSpec]:
    """Returns the specs of the topics that several domains write to."""
    readers: dict[dg.AssetKey, set[dg.AssetKey]] = {}
    for contract in (c for d in domains for c in d.contracts if c.rate == "high"):
        for key in (keys.DASHBOARD, *(keys.topic(w.topic) for w in contract.windows if w.topic)):
            readers.setdefault(key, set()).add(keys.bronze(contract))
    return [dg.AssetSpec(key, deps=sorted(deps), group_name="live", kinds={"kafka"}) for key, deps in readers.items()]


class OffsetRange(dg.Config):
    """The offset range that a run ingests.

    `end` is the offset before which the run stops, by partition number (as a string). By default, the run ingests all
    messages of the topic.
    """

    end: dict[str, int] = {}


def low_rate_asset(domain: Domain, contract: Contract) -> dg.AssetsDefinition:
    """Returns the asset that writes bronze and quarantine of a low-rate topic.

    A run appends an offset range. A range that is ingested a second time adds nothing.

    An offset range is not a day, so a run has no partition. The run reports a materialization for each day of its
    rows, as the stream does. Without rows it reports one materialization without a day, which marks nothing downstream.
    """
    # The outputs are skippable, because the run reports the days itself: an output has no day.
    specs = [
        spec._replace(skippable=True) for spec in (_bronze_spec(domain, contract), _quarantine_spec(domain, contract))
    ]

    @dg.multi_asset(name=f"ingest_{contract.name}", specs=specs)
    def ingest(
        context: dg.AssetExecutionContext, config: OffsetRange, kafka: KafkaResource, lake: LakeResource
    ) -> Iterator[Any]:
        end = {int(p): offset for p, offset in config.end.items()} or kafka.ends(contract.topic)
        ingested = ingest_range(contract, kafka, lake, end)
        for layer, key, times in (
            ("bronze", keys.bronze(contract), ingested.events),
            ("quarantine", keys.quarantine(contract), ingested.arrivals),
        ):
            days: list[str | None] = [*sorted(map(str, local_days(times, settings().timezone)))]
            metadata = describe(lake, contract, layer, ingested.report if layer == "bronze" else {})
            for day in days or [None]:
                context.log_event(dg.AssetMaterialization(key, metadata=metadata, partition=day))
        yield from ()

    return ingest


@dataclass(frozen=True)
class IngestedRange:
    """What a run appended to bronze and quarantine.

    `events` are the event times of the accepted rows. `arrivals` are the arrival times of the rejected messages.
    `report` is the metadata for the UI.
    """

    events: pl.Series
    arrivals: pl.Series
    report: Metadata


def ingest_range(contract: Contract, kafka: KafkaResource, lake: LakeResource, end: Offsets) -> IngestedRange:
    """Appends the messages from bronze's own position up to `end` (exclusive), by the stream's commit protocol."""
    stream = BronzeStream(lake.root, contract)
    stream.load(sorted(end))
    start = stream.resume
    raw = kafka.read(contract.topic, start, end)
    if not raw.end:
        return IngestedRange(pl.Series(dtype=TIMESTAMP), pl.Series(dtype=TIMESTAMP), {"appended": 0})
    rows, rejects = decode(contract, raw, stream.watermarks)
    stream.commit(Batch(rows, raw.start, raw.end), rejects, {}, threading.Event(), lambda reason: None)
    report: Metadata = {
        "appended": rows.height,
        "rejected": rejects.height,
        "offsets": dg.MetadataValue.json(_offset_ranges(raw.start, raw.end)),
    }
    return IngestedRange(rows[contract.event_time], rejects["arrived"], report)


def describe(lake: LakeResource, contract: Contract, layer: str, report: Metadata) -> Metadata:
    """Returns a table's metadata for the UI: rows, files, version and newest rows, merged with `report`."""
    newest = preview_table(locate(lake.root, layer, contract.name), _PREVIEW_ROWS, ORDER[layer])
    preview = dg.MetadataValue.md(markdown(newest.frame)) if newest.frame.height else "empty"
    return {
        "dagster/row_count": newest.rows,
        "files": newest.files,
        "version": newest.version,
        "newest": preview,
    } | report


def _offset_ranges(start: Offsets, end: Offsets) -> dict[str, list[int]]:
    return {str(p): [start[p], end[p]] for p in end}


def _topic_spec(domain: Domain, contract: Contract) -> dg.AssetSpec:
    return dg.AssetSpec(
        keys.topic(contract.topic),
        group_name=domain.name,
        kinds={"kafka"},
        description=contract.description,
        metadata={"topic": contract.topic, "contract_version": contract.version},
    )


def _bronze_spec(domain: Domain, contract: Contract) -> dg.AssetSpec:
    return dg.AssetSpec(
        keys.bronze(contract),
        deps=[keys.topic(contract.topic)],
        group_name=domain.name,
        kinds={"deltalake", "bronze"},
        partitions_def=keys.live_days(),
        description=f"{contract.description} Every valid event of `{contract.topic}`, exactly once.",
        metadata={"dagster/column_schema": keys.bronze_columns(contract)},
    )


def _quarantine_spec(domain: Domain, contract: Contract) -> dg.AssetSpec:
    return dg.AssetSpec(
        keys.quarantine(contract),
        deps=[keys.topic(contract.topic)],
        group_name=domain.name,
        kinds={"deltalake"},
        partitions_def=keys.live_days(),
        description=f"The raw messages of `{contract.topic}` that its contract rejects, each with every reason.",
        metadata={"dagster/column_schema": keys.quarantine_columns()},
    )


def _derived_spec(domain: Domain, key: dg.AssetKey, kind: str, description: str, bronze: dg.AssetKey) -> dg.AssetSpec:
    return dg.AssetSpec(key, deps=[bronze], group_name=domain.name, kinds={kind}, description=description)
