"""The low-rate path, the checks, the reports and the maintenance, on a lake of the test's own."""

import json
import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import dagster as dg
import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa
from deltalake import write_deltalake

from city.contracts.model import Contract
from city.contracts.registry import domain_of
from city.dagster_internals import RUNLESS_RUN_ID, SqlEventLogStorageTable
from city.lake import bronze_path, quarantine_path
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.records import Batch, Offsets, RawBatch
from city_assets import keys
from city_assets.automation import HISTORY_TAG
from city_assets.bronze import low_rate_asset
from city_assets.checks import contract_checks
from city_assets.environment.contract import DEVICES
from city_assets.maintenance import delete_runless_events, lake_maintenance, run_retention
from city_assets.traffic.contract import VEHICLE_POSITIONS
from resources.kafka import KafkaResource
from resources.lake import LakeResource
from simulators.faults import FaultRates
from tests.events import encode, iso, position, raw
from tests.sensors import fleet


class MemoryKafka(KafkaResource):
    """A double: a topic of one partition, in memory."""

    messages: list[str] = []

    def ends(self, topic: str) -> Offsets:
        return {0: len(self.messages)} if self.messages else {}

    def read(self, topic: str, start: Offsets, end: Offsets) -> RawBatch:
        values: list[bytes | None] = [message.encode() for message in self.messages[start.get(0, 0) : end.get(0, 0)]]
        stamp = int(datetime.now(UTC).timestamp() * 1e6)
        count = len(values)
        covered = {0: end[0]} if count else dict[int, int]()
        offsets = np.arange(start.get(0, 0), end.get(0, 0), dtype=np.int64)
        return RawBatch(values, np.zeros(count, np.int32), offsets, np.full(count, stamp), dict(start), covered)


def announcements(count: int) -> list[str]:
    now = datetime.now(UTC)
    return [json.dumps(sensor.announcement(now)) for sensor in fleet(FaultRates(), 0)[:count]]


def materialize(
    lake: LakeResource, kafka: KafkaResource, end: dict[str, int] | None = None
) -> dg.ExecuteInProcessResult:
    config = {"ops": {"ingest_devices": {"config": {"end": end or {}}}}}
    asset = low_rate_asset(domain_of("environment"), DEVICES)
    return dg.materialize_to_memory([asset], resources={"lake": lake, "kafka": kafka}, run_config=config)


@pytest.fixture
def lake(config: Settings) -> LakeResource:
    return LakeResource(path=str(config.lake))


def devices(lake: LakeResource) -> pl.DataFrame:
    return pl.read_delta(str(bronze_path(lake.root, DEVICES))).sort("_offset")


def test_a_run_appends_its_offset_range_once_however_often_it_comes(lake: LakeResource) -> None:
    kafka = MemoryKafka(address="", messages=[*announcements(10), "{broken"])
    for _ in range(2):
        result = materialize(lake, kafka, {"0": 6})
        assert devices(lake)["_offset"].to_list() == list(range(6))
    metadata = result.asset_materializations_for_node("ingest_devices")[0].metadata
    assert metadata["dagster/row_count"].value == 6
    assert "| timestamp | sensor_id |" in str(metadata["newest"].value)
    materialize(lake, kafka)
    assert devices(lake)["_offset"].to_list() == list(range(10))
    quarantined = pl.read_delta(str(quarantine_path(lake.root, DEVICES)))
    assert quarantined.select("offset", "raw").rows() == [(10, b"{broken")]


def test_an_empty_topic_makes_an_empty_run(lake: LakeResource) -> None:
    assert materialize(lake, MemoryKafka(address="")).success


def stream_in(lake: LakeResource, contract: Contract, values: list[bytes | None], first: int = 0) -> None:
    stream = BronzeStream(lake.root, contract)
    stream.load([0])
    received = raw(values, first=first, arrived=datetime.now(UTC))
    rows, rejects = decode(contract, received, {})
    stream.commit(Batch(rows, received.start, received.end), rejects, {}, threading.Event(), lambda _: None)


def now_positions(count: int) -> list[bytes | None]:
    return encode(*(position(timestamp=iso(datetime.now(UTC)), trip_id=f"t{n}") for n in range(count)))


def judge(lake: LakeResource, contract: Contract = VEHICLE_POSITIONS) -> dict[str, dg.AssetCheckEvaluation]:
    checks = contract_checks(contract)
    assets = [dg.AssetSpec(keys.bronze(contract))]
    defs = dg.Definitions(assets=assets, asset_checks=checks, resources={"lake": lake})
    job = dg.define_asset_job("checks", dg.AssetSelection.all_asset_checks())
    result = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("checks").execute_in_process()
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def test_a_healthy_table_passes_every_check(lake: LakeResource) -> None:
    stream_in(lake, VEHICLE_POSITIONS, now_positions(20))
    assert {name: e.passed for name, e in judge(lake).items()} == dict.fromkeys(
        ["schema", "valid", "once", "quarantine", "alive"], True
    )


def test_checks_see_what_somebody_else_wrote(lake: LakeResource) -> None:
    stream_in(lake, VEHICLE_POSITIONS, [*now_positions(20), *([b"{"] * 20)])
    path = bronze_path(lake.root, VEHICLE_POSITIONS)
    rows = pl.read_delta(str(path)).head(3)
    write_deltalake(path, rows.with_columns(speed=pl.lit(900.0)), mode="append")
    result = judge(lake)
    assert {name for name, e in result.items() if not e.passed} == {"valid", "once", "quarantine"}
    assert result["valid"].metadata["reasons"].value == {"speed: outside 0 to 200 km/h": 3}
    assert result["once"].metadata["repeated"].value == 3
    assert result["valid"].severity == dg.AssetCheckSeverity.ERROR
    assert result["quarantine"].severity == dg.AssetCheckSeverity.WARN


def test_checks_of_a_table_that_is_not_there_fail_and_say_so(lake: LakeResource) -> None:
    result = judge(lake)
    assert not any(e.passed for e in result.values())
    assert {e.description for e in result.values()} == {"there is no table yet"}


def test_checks_see_silence_and_foreign_columns(lake: LakeResource) -> None:
    stream_in(lake, VEHICLE_POSITIONS, now_positions(2))
    path = bronze_path(lake.root, VEHICLE_POSITIONS)
    rows = pl.read_delta(str(path)).with_columns(_arrived=pl.col("_arrived") - pl.duration(hours=1), more=1)
    write_deltalake(path, rows, mode="overwrite", schema_mode="overwrite")
    assert {name for name, e in judge(lake).items() if not e.passed} == {"schema", "alive"}


def test_maintenance_leaves_few_files_and_every_row(lake: LakeResource, config: Settings) -> None:
    for first in range(12):
        stream_in(lake, VEHICLE_POSITIONS, now_positions(1), first)
    result = dg.materialize_to_memory([lake_maintenance], resources={"lake": lake})
    metadata = result.asset_materializations_for_node("lake_maintenance")[0].metadata
    assert (metadata["files_before"].value, metadata["files_after"].value) == (12, 1)
    assert pl.read_delta(str(bronze_path(lake.root, VEHICLE_POSITIONS))).height == 12
    assert BronzeStream(lake.root, VEHICLE_POSITIONS).load([0]) == {0: 12}


def test_old_runs_are_forgotten_and_new_ones_kept(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run_retention.execute_in_process(instance=instance)
        assert len(instance.get_runs()) == 1
        monkeypatch.setattr("city_assets.maintenance.timedelta", lambda days: -(datetime.max - datetime.now()) / 2)
        run_retention.execute_in_process(instance=instance)
        assert len(instance.get_runs()) == 1, "the first is gone, the second ran"


def test_old_events_without_a_run_are_deleted_and_new_ones_kept(config: Settings) -> None:
    """They are what sensors report. Dagster deletes events only with their run."""
    key = keys.bronze(VEHICLE_POSITIONS)

    @dg.asset(key=key)
    def built() -> None: ...

    with dg.DagsterInstance.local_temp() as instance:
        for day in ("2026-05-01", "2026-05-02"):
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day, tags={"city/x": "1"}))
        dg.materialize([built], instance=instance)
        now = datetime.now(UTC)
        assert delete_runless_events(instance, now - timedelta(minutes=1)) == 0
        assert delete_runless_events(instance, now + timedelta(minutes=1)) == 2
        assert [r.partition_key for r in instance.fetch_materializations(key, limit=9).records] == [None]
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2026-05-03"))
        assert [r.partition_key for r in instance.fetch_materializations(key, limit=1).records] == ["2026-05-03"]


def test_the_reports_of_the_history_of_a_new_city_are_kept(config: Settings) -> None:
    key = keys.bronze(VEHICLE_POSITIONS)
    with dg.DagsterInstance.local_temp() as instance:
        for day, tags in (("2026-05-01", {HISTORY_TAG: "true", "city/x": "1"}), ("2026-05-02", {"city/x": "1"})):
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day, tags=tags))
        assert delete_runless_events(instance, datetime.now(UTC) + timedelta(minutes=1)) == 1
        (kept,) = instance.fetch_materializations(key, limit=9).records
        assert kept.partition_key == "2026-05-01"
        assert instance.get_materialized_partitions(key) == {"2026-05-01"}
        with instance.event_log_storage.run_connection(RUNLESS_RUN_ID) as connection:  # type: ignore[attr-defined]
            query = sa.select(SqlEventLogStorageTable.c.partition)
            assert [day for (day,) in connection.execute(query)] == ["2026-05-01"]


def test_however_many_old_runs_there_are_they_go(config: Settings) -> None:
    """More in a week than one batch, which was a day's share once."""

    @dg.job
    def old() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(1_200):
            instance.run_storage.add_historical_run(
                dg.DagsterRun(job_name="old", run_id=str(uuid4()), status=dg.DagsterRunStatus.SUCCESS),
                run_creation_time=datetime.now(UTC) - timedelta(days=config.run_retention_days + 1),
            )
        kept = instance.create_run_for_job(old, status=dg.DagsterRunStatus.SUCCESS)
        result = run_retention.execute_in_process(instance=instance)
        assert result.output_for_node("delete_old_runs") == 1_200
        assert {run.run_id for run in instance.get_runs()} == {kept.run_id, result.run_id}
