"""Asset checks that follow from every contract. They look at what is in the tables, whoever wrote it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from city.contracts import validity
from city.contracts.model import Contract
from city.contracts.schema import bronze_schema
from city_assets import keys
from resources.lake import LakeResource

RECENT = timedelta(minutes=30)
QUARANTINED_SHARE = 0.2
SILENCE = timedelta(minutes=5)


def contract_checks(contract: Contract) -> list[dg.AssetChecksDefinition]:
    """Schema, validity and uniqueness (errors), share of quarantine and silence (warnings)."""
    specs: dict[str, tuple[Any, dg.AssetCheckSeverity, str]] = {
        "schema": (check_schema, dg.AssetCheckSeverity.ERROR, "The table has the contract's columns."),
        "valid": (
            check_valid,
            dg.AssetCheckSeverity.ERROR,
            f"Recent rows satisfy {contract.name} v{contract.version}.",
        ),
        "once": (check_once, dg.AssetCheckSeverity.ERROR, "No Kafka offset is in the table twice."),
        "quarantine": (check_quarantine, dg.AssetCheckSeverity.WARN, f"At most {QUARANTINED_SHARE:.0%} is rejected."),
    }
    if contract.rate == "high":
        specs["alive"] = (check_alive, dg.AssetCheckSeverity.WARN, "Events came within the last five minutes.")
    return [_check(contract, name, *spec) for name, spec in specs.items()]


def _check(
    contract: Contract, name: str, judge: Any, severity: dg.AssetCheckSeverity, means: str
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=keys.bronze(contract), name=name, description=means)
    def check(lake: LakeResource) -> dg.AssetCheckResult:
        if not lake.exists(contract):
            return dg.AssetCheckResult(passed=False, severity=severity, description="there is no table yet")
        passed, metadata = judge(contract, lake)
        return dg.AssetCheckResult(passed=bool(passed), severity=severity, metadata=metadata)

    return check


def check_schema(contract: Contract, lake: LakeResource) -> tuple[bool, dict[str, Any]]:
    found = dict(lake.scan(contract).collect_schema())
    wanted = bronze_schema(contract)
    return found == wanted, {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "other_type": sorted(n for n in wanted.keys() & found.keys() if wanted[n] != found[n]),
    }


def check_valid(contract: Contract, lake: LakeResource) -> tuple[bool, dict[str, Any]]:
    rows = recent(contract, lake)
    _, broken = validity.split(contract, rows)
    reasons = broken["reasons"].explode().value_counts(sort=True).head(20)
    return broken.is_empty(), {"rows": rows.height, "invalid": broken.height, "reasons": _json(reasons)}


def check_once(contract: Contract, lake: LakeResource) -> tuple[bool, dict[str, Any]]:
    rows = recent(contract, lake).select("_partition", "_offset")
    repeated = rows.height - rows.unique().height
    return repeated == 0, {"rows": rows.height, "repeated": repeated}


def check_quarantine(contract: Contract, lake: LakeResource) -> tuple[bool, dict[str, Any]]:
    accepted = recent(contract, lake).height
    rejected = pl.DataFrame({"reasons": [[""]]}).clear()
    if lake.exists(contract, "quarantine"):
        rejected = lake.scan(contract, "quarantine").filter(pl.col("arrived") > _since()).select("reasons").collect()
    share = rejected.height / max(1, rejected.height + accepted)
    reasons = rejected["reasons"].explode().value_counts(sort=True).head(20)
    metadata = {"accepted": accepted, "rejected": rejected.height, "share": round(share, 4), "reasons": _json(reasons)}
    return share <= QUARANTINED_SHARE, metadata


def check_alive(contract: Contract, lake: LakeResource) -> tuple[bool, dict[str, Any]]:
    newest = recent(contract, lake)["_arrived"].max()
    alive = isinstance(newest, datetime) and datetime.now(UTC) - newest < SILENCE
    return alive, {"newest": str(newest)}


def recent(contract: Contract, lake: LakeResource) -> pl.DataFrame:
    """The rows that arrived within RECENT."""
    return lake.scan(contract).filter(pl.col("_arrived") > _since()).collect()


def _since() -> datetime:
    return datetime.now(UTC) - RECENT


def _json(counts: pl.DataFrame) -> dg.JsonMetadataValue:
    return dg.MetadataValue.json({str(reason): count for reason, count in counts.iter_rows() if reason})
