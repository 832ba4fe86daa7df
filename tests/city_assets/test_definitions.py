"""The whole graph: it loads, and what changes in it shows in a review."""

import dagster as dg
from syrupy.assertion import SnapshotAssertion

from city_assets.definitions import build


def test_every_definition_loads() -> None:
    dg.Definitions.validate_loadable(build())


def test_the_graph_is_as_it_was(snapshot: SnapshotAssertion) -> None:
    defs = build()
    graph = {
        spec.key.to_user_string(): {
            "group": spec.group_name,
            "kinds": sorted(spec.kinds),
            "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        }
        for spec in defs.resolve_all_asset_specs()
    }
    checks = sorted(f"{c.asset_key.to_user_string()}: {c.name}" for d in defs.asset_checks or [] for c in d.check_keys)  # type: ignore[union-attr]
    timing = sorted(s.name for s in [*(defs.sensors or []), *(defs.schedules or [])])
    assert {"assets": graph, "checks": checks, "timing": timing} == snapshot
