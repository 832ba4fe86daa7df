from pathlib import Path

import dagster as dg
import yaml

from city_assets.definitions import defs
from sensors_and_schedules.schedules import archive_lake, check_contracts, maintain_lake
from sensors_and_schedules.turns import TAKES_TURNS, TURN

CHECKOUT = Path(__file__).parents[2]


def test_dagster_runs_one_of_those_that_take_turns_and_leaves_room_for_the_stream_and_older_days() -> None:
    queue = yaml.safe_load((CHECKOUT / "dagster.yaml").read_text())["run_coordinator"]["config"]
    assert queue["tag_concurrency_limits"] == [{"key": TURN, "limit": 1}]
    assert queue["max_concurrent_runs"] == 3


def test_short_runs_take_turns_and_long_runs_do_not() -> None:
    assert {job.name for job in defs.resolve_all_job_defs() if job.tags.get(TURN)} == {
        "train_models",
        "check_contracts_job",
        "ingest_low_rate",
    }
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {
            schedule.name: schedule.evaluate_tick(
                dg.build_schedule_context(instance=instance, repository_def=defs.get_repository_def())
            ).run_requests
            for schedule in (maintain_lake, check_contracts, archive_lake)
        }
    takes_turns = {name: TAKES_TURNS.items() <= requests[0].tags.items() for name, requests in tags.items() if requests}
    assert takes_turns["maintain_lake"]
    assert not takes_turns["archive_lake"]
