"""Tells the asset graph which days of bronze and quarantine the stream has let grow, from the stream's own report."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import dagster as dg

from city.contracts.model import Contract
from city.lake import locate, row_count
from city.stack.reports import StreamSummary
from city.stack.state import Report
from city.streaming.report import BRONZE, QUARANTINE
from city_assets import keys
from city_assets.bronze import describe
from city_assets.preview import Metadata
from resources.lake import LakeResource

log = logging.getLogger(__name__)

_PREVIEW_SECONDS = 600.0
_EVENTS = 200  # so many days are reported at a time. A storage takes some milliseconds for each


@dataclass
class ReportedGrowth:
    """What has been reported to the asset graph. The sensor's cursor keeps it, as JSON.

    A preview of the rows is by far the largest part of an event. Therefore a table's preview is reported at most every
    ten minutes.
    """

    at: float = 0.0
    """The time of the last report."""
    days: dict[str, dict[str, float]] = field(default_factory=dict)
    """By table and day, the time of the newest growth that was reported."""
    previews: dict[str, float] = field(default_factory=dict)
    """By table, the time of the last preview."""

    def content(self) -> dict[str, object]:
        """Returns the JSON content."""
        return asdict(self)

    def take_events(
        self, contracts: Sequence[Contract], report: Report, lake: LakeResource, now: float
    ) -> list[dg.AssetMaterialization]:
        """Returns a materialization for each day of each table that grew since the last report, and records it.

        A table that cannot be read now is reported the next time. `now` is in seconds since the epoch.
        """
        self.at = now
        summaries = {summary["topic"]: summary for summary in report["streams"]}
        events: list[dg.AssetMaterialization] = []
        for contract in contracts:
            if (summary := summaries.get(contract.topic)) is not None:
                grown = report.get("grown", {}).get(contract.topic, {})
                for table in (BRONZE, QUARANTINE):
                    most = _EVENTS - len(events)
                    try:
                        events += self._take_table(lake, contract, table, grown.get(table, {}), summary, now, most)
                    except Exception as error:
                        log.warning("cannot report %s/%s to the asset graph: %s", table, contract.name, error)
        return events

    def _take_table(
        self,
        lake: LakeResource,
        contract: Contract,
        table: str,
        grown: dict[str, float],
        summary: StreamSummary,
        now: float,
        most: int,
    ) -> list[dg.AssetMaterialization]:
        name = f"{table}/{contract.name}"
        reported = self.days.get(name, {})
        days = sorted(day for day, at in grown.items() if at > reported.get(day, 0.0))[:most]
        if not days:
            return []
        metadata: Metadata = {key: value for key, value in summary.items() if isinstance(value, str | int | float)}
        rows = row_count(locate(lake.root, table, contract.name))
        metadata["dagster/row_count"] = rows
        if rows and now - self.previews.get(name, 0.0) >= _PREVIEW_SECONDS:
            metadata = describe(lake, contract, table, metadata)
            self.previews[name] = now
        self.days[name] = {day: grown[day] if day in days else reported.get(day, 0.0) for day in grown}
        key = keys.bronze(contract) if table == BRONZE else keys.quarantine(contract)
        return [dg.AssetMaterialization(key, metadata=metadata, partition=day) for day in days]
