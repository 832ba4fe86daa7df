"""Findings on sensors whose evaluation fails."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.error import SerializableErrorInfo

from city_assets.monitoring.ticks import tick_findings


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with a storage of ticks, which an ephemeral one does not have."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as local:
        yield local


def sensor(instance: dg.DagsterInstance, status: InstigatorStatus = InstigatorStatus.RUNNING) -> InstigatorState:
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="city"), location_name="city")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "city"), "report")
    state = InstigatorState(origin, InstigatorType.SENSOR, status)
    instance.add_instigator_state(state)
    return state


def evaluate(instance: dg.DagsterInstance, state: InstigatorState, *results: TickStatus) -> None:
    for number, result in enumerate(results):
        failed = result is TickStatus.FAILURE
        instance.create_tick(
            TickData(
                state.instigator_origin_id,
                state.instigator_name,
                InstigatorType.SENSOR,
                result,
                1_800_000_000.0 + len(instance.get_ticks(state.instigator_origin_id, state.selector_id)) + number,
                error=SerializableErrorInfo("ValueError: no number\n", [], None) if failed else None,
                selector_id=state.selector_id,
            )
        )


def test_a_sensor_that_fails_again_and_again_raises_an_alarm_until_it_works(instance: dg.DagsterInstance) -> None:
    state = sensor(instance)
    evaluate(instance, state, TickStatus.SKIPPED, TickStatus.FAILURE, TickStatus.FAILURE)
    assert [finding.state for finding in tick_findings(instance)] == ["passing"]
    evaluate(instance, state, TickStatus.FAILURE, TickStatus.STARTED)
    (finding,) = tick_findings(instance)
    assert (finding.cause, finding.state, finding.severity) == ("tick/report", "failing", "error")
    assert finding.title == "the sensor report has failed 3 times in a row, and does nothing"
    assert finding.detail == {"error": "ValueError: no number"}
    evaluate(instance, state, TickStatus.SKIPPED)
    assert [finding.state for finding in tick_findings(instance)] == ["passing"]


def test_a_stopped_sensor_raises_no_alarm(instance: dg.DagsterInstance) -> None:
    evaluate(instance, sensor(instance, InstigatorStatus.STOPPED), *[TickStatus.FAILURE] * 4)
    assert [finding.state for finding in tick_findings(instance)] == ["passing"]
