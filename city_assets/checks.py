"""The asset checks that follow from every contract. They read the tables, whichever process wrote them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from city.contracts import validity
from city.contracts.model import Contract
from city.contracts.schema import bronze_schema
from city_assets import keys
from city_assets.preview import Metadata
from resources.lake import LakeResource

RECENT = timedelta(minutes=30)
"""The checks read the rows that arrived within this time."""
QUARANTINED_SHARE = 0.2
"""The largest share of rejected messages that passes."""
SILENCE = timedelta(minutes=5)
"""A topic whose newest event arrived before this time is silent."""

Verdict = tuple[bool, Metadata]
Judge = Callable[[Contract, LakeResource], Verdict]


def contract_checks(contract: Contract) -> list[dg.AssetChecksDefinition]:
    """Returns the checks of a contract's bronze table.

    Schema, validity and uniqueness are errors. The share of quarantine and silence are warnings.
    """
    specs: dict[str, tuple[Judge, dg.AssetCheckSeverity, str]] = {
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
        specs["alive"] = (check_alive, dg.AssetCheckSeverity.WARN, "Events arrived within the last five minutes.")
    return [_build_check(contract, name, *spec) for name, spec in specs.items()]


def _build_check(
    contract: Contract, name: str, judge: Judge, severity: dg.AssetCheckSeverity, description: str
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=keys.bronze(contract), name=name, description=description)
    def check(lake: LakeResource) -> dg.AssetCheckResult:
        if not lake.exists(contract):
            return dg.AssetCheckResult(passed=False, severity=severity, description="there is no table yet")
        passed, metadata = judge(contract, lake)
        return dg.AssetCheckResult(passed=bool(passed), severity=severity, metadata=metadata)

    return check


def check_schema(contract: Contract, lake: LakeResource) -> Verdict:
    """Checks that bronze has the contract's columns and types. Returns whether it passed, and the metadata."""
    actual = dict(lake.scan(contract).collect_schema())
    expected = bronze_schema(contract)
    return actual == expected, {
        "missing": sorted(expected.keys() - actual.keys()),
        "unexpected": sorted(actual.keys() - expected.keys()),
        "other_type": sorted(n for n in expected.keys() & actual.keys() if expected[n] != actual[n]),
    }


def check_valid(contract: Contract, lake: LakeResource) -> Verdict:
    """Checks that the recent rows satisfy the contract. Returns whether it passed, and the metadata."""
    rows = recent(contract, lake)
    _, invalid = validity.split(contract, rows)
    reasons = invalid["reasons"].explode().value_counts(sort=True).head(20)
    return invalid.is_empty(), {"rows": rows.height, "invalid": invalid.height, "reasons": _reason_counts(reasons)}


def check_once(contract: Contract, lake: LakeResource) -> Verdict:
    """Checks that no Kafka offset is in bronze twice. Returns whether it passed, and the metadata."""
    rows = recent(contract, lake).select("_partition", "_offset")
    repeated = rows.height - rows.unique().height
    return repeated == 0, {"rows": rows.height, "repeated": repeated}


def check_quarantine(contract: Contract, lake: LakeResource) -> Verdict:
    """Checks the share of recently rejected messages. Returns whether it passed, and the metadata."""
    accepted = recent(contract, lake).height
    rejected = pl.DataFrame({"reasons": [[""]]}).clear()
    if lake.exists(contract, "quarantine"):
        rejected = (
            lake.scan(contract, "quarantine").filter(pl.col("arrived") > _recent_begin()).select("reasons").collect()
        )
    share = rejected.height / max(1, rejected.height + accepted)
    reasons = rejected["reasons"].explode().value_counts(sort=True).head(20)
    metadata: Metadata = {
        "accepted": accepted,
        "rejected": rejected.height,
        "share": round(share, 4),
        "reasons": _reason_counts(reasons),
    }
    return share <= QUARANTINED_SHARE, metadata


def check_alive(contract: Contract, lake: LakeResource) -> Verdict:
    """Checks that an event arrived within SILENCE. Returns whether it passed, and the metadata."""
    newest = recent(contract, lake)["_arrived"].max()
    alive = isinstance(newest, datetime) and datetime.now(UTC) - newest < SILENCE
    return alive, {"newest": str(newest)}


def recent(contract: Contract, lake: LakeResource) -> pl.DataFrame:
    """Reads the bronze rows that arrived within RECENT."""
    return lake.scan(contract).filter(pl.col("_arrived") > _recent_begin()).collect()


def _recent_begin() -> datetime:
    return datetime.now(UTC) - RECENT


def _reason_counts(counts: pl.DataFrame) -> dg.JsonMetadataValue:
    return dg.MetadataValue.json({str(reason): count for reason, count in counts.iter_rows() if reason})
