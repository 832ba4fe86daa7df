"""The whole graph: it loads, and what changes in it shows in a review."""

import subprocess
import sys

import dagster as dg
from syrupy.assertion import SnapshotAssertion

from city_assets.definitions import build


def test_every_definition_loads_and_nothing_is_made_from_itself() -> None:
    dg.Definitions.validate_loadable(build())
    assert build().resolve_asset_graph().toposorted_asset_keys


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


def test_what_takes_seconds_to_import_is_left_to_the_runs_that_need_it() -> None:
    """Every process of Dagster's loads the definitions, and each run anew."""
    heavy = {"scipy", "sklearn", "mlflow", "optuna", "matplotlib", "feast", "great_expectations", "onnxruntime"}
    code = "import sys, city_assets.definitions; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"city_assets", "dagster"} <= loaded
    assert not heavy & loaded
