"""Cold storage on a real S3 server: moves, builds, erasures, and what is told where S3 refuses."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal
from pydantic import SecretStr

from city.cli.errors import explain
from city.lake.cold import archive
from city.lake.location import ColdStorageError, Location, cold_location
from city.lake.snapshot import Snapshot
from city.privacy.erase import find, forget
from city.s3 import S3Server
from city.settings import Settings
from city.stack.external import check_logins
from city.stack.part import CannotStart, Part
from city.stack.specs import specs
from city.tables.registry import table_of
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests import s3_server
from tests.lakes import drive, house, stream
from tests.s3_server import TestS3

NOW = datetime(2026, 5, 10, 15, tzinfo=UTC)
KEEP = timedelta(days=3)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestS3]:
    if not s3_server.is_installed():
        pytest.skip(s3_server.ABSENT)
    with s3_server.s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def on_s3(config: Settings, settings: dict[str, str]) -> Settings:
    secrets = ("cold_access_key", "cold_secret_key")
    return config.model_copy(
        update={name: SecretStr(value) if name in secrets else value for name, value in settings.items()}
    )


def test_rows_move_to_s3_and_are_read_and_erased_there(config: Settings, s3: TestS3) -> None:
    config = on_s3(config, s3.settings() | {"cold": f"s3://{s3_server.BUCKET}/moves/"})
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(days=8), 24 * 8, every=7200), NOW)
    days = [(NOW - timedelta(days=n)).date() for n in range(9)]
    silver, path = table_of("silver/vehicle_positions"), str(config.lake / "silver/vehicle_positions")
    house(config).build(silver, days, full=True)
    before = pl.read_delta(path).sort(silver.key)
    cold = cold_location(config)
    moved = archive(VEHICLE_POSITIONS, config.lake, cold, KEEP, NOW)
    assert moved.rows == moved.deleted > 0
    assert archive(VEHICLE_POSITIONS, config.lake, cold, KEEP, NOW + timedelta(days=1)).rows > 0
    house(config).build(silver, days, full=True)
    assert_frame_equal(pl.read_delta(path).sort(silver.key), before)
    files = (cold / VEHICLE_POSITIONS.name).open().file_uris()
    assert all(file.startswith(f"s3://{s3_server.BUCKET}/moves/vehicle_positions/year=2026/") for file in files)
    vehicle = before["vehicle_id"][0]
    span = NOW - timedelta(days=9), NOW
    others = Snapshot(config.lake, cold).events(VEHICLE_POSITIONS, *span).filter(pl.col("vehicle_id") != vehicle)
    kept = others.collect().sort("_offset")
    assert find(config, "vehicle", vehicle)["cold/vehicle_positions"] > 0
    report = forget(config, "vehicle", vehicle)
    assert not [problem for problem in report.problems if problem.startswith("cold")], report.problems
    assert report.rows["cold/vehicle_positions"] > 0
    assert "cold/vehicle_positions" not in find(config, "vehicle", vehicle)
    assert_frame_equal(Snapshot(config.lake, cold).events(VEHICLE_POSITIONS, *span).collect().sort("_offset"), kept)


def test_an_interrupted_move_to_s3_is_undone(config: Settings, s3: TestS3, monkeypatch: pytest.MonkeyPatch) -> None:
    config = on_s3(config, s3.settings() | {"cold": f"s3://{s3_server.BUCKET}/undone"})
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(days=8), 24, every=7200), NOW)
    cold, bronze = cold_location(config), str(config.lake / "bronze/vehicle_positions")
    rows = DeltaTable(bronze).count()
    with monkeypatch.context() as patched:
        patched.setattr("city.lake.cold._seconds", lambda moment: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            archive(VEHICLE_POSITIONS, config.lake, cold, KEEP, NOW)
    assert archive(VEHICLE_POSITIONS, config.lake, cold, KEEP, NOW).rows == rows
    assert (DeltaTable(bronze).count(), (cold / VEHICLE_POSITIONS.name).open().count()) == (0, rows)


def test_two_writers_do_not_make_the_same_version(config: Settings, s3: TestS3) -> None:
    config = on_s3(config, s3.settings() | {"cold": f"s3://{s3_server.BUCKET}/versions"})
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(days=8), 24, every=7200), NOW)
    archive(VEHICLE_POSITIONS, config.lake, cold_location(config), KEEP, NOW)
    table = cold_location(config) / VEHICLE_POSITIONS.name
    first, second = table.open(), table.open()
    version = first.version()
    for writer in (first, second):
        writer.create_write_transaction([], "append", writer.schema())
    assert table.open().version() == version + 2


def refusals(s3: TestS3) -> list[tuple[dict[str, str], str, bool]]:
    """Settings that are wrong, what is told of them, and whether it is told at the start."""
    right = s3.settings()
    login = "check CITY_COLD_ACCESS_KEY and CITY_COLD_SECRET_KEY"
    return [
        (right | {"cold_secret_key": "not-the-secret"}, f"refuses the login (SignatureDoesNotMatch): {login}", True),
        (right | {"cold_access_key": "AKIANOBODY"}, f"refuses the login (InvalidAccessKeyId): {login}", True),
        (s3.settings(s3.stranger), "refuses the access (AccessDenied): let the user of CITY_COLD_ACCESS_KEY", True),
        (s3.settings(s3.reader), "refuses the access (AccessDenied): let the user of CITY_COLD_ACCESS_KEY", False),
        (right | {"cold": "s3://absent/cold"}, "there is no bucket absent: create it, or correct CITY_COLD", True),
        (right | {"cold_endpoint": "http://127.0.0.1:1"}, "no answer (Connection refused (os error 111)", False),
        (
            right | {"cold_endpoint": s3.endpoint.replace("http", "https")},
            "no TLS with this endpoint: does CITY_COLD_ENDPOINT begin with the right one",
            True,
        ),
    ]


@pytest.mark.parametrize(
    "number", range(7), ids=["secret", "key", "no right", "reads only", "bucket", "endpoint", "protocol"]
)
def test_what_s3_refuses_is_told_with_the_setting(config: Settings, s3: TestS3, number: int) -> None:
    settings, reason, at_start = refusals(s3)[number]
    wrong = on_s3(config, settings)
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(days=8), 3, every=7200), NOW)
    began = time.monotonic()
    with pytest.raises(ColdStorageError) as error:
        archive(VEHICLE_POSITIONS, wrong.lake, cold_location(wrong), KEEP, NOW)
    assert time.monotonic() - began < 20, "seconds, not minutes"
    assert reason in str(error.value), error.value
    assert "\n" not in str(error.value)
    began = time.monotonic()
    if at_start:
        with pytest.raises(CannotStart, match="cold storage s3://") as refused:
            check_logins(wrong)
        assert reason in str(refused.value)
    else:
        check_logins(wrong)  # it may come, or is found out by the first move
    assert time.monotonic() - began < 20
    shown = f"{error.value} {error.getrepr()} {wrong!r} {wrong.cold_server!r} {cold_location(wrong)!r}"
    for secret in (settings["cold_access_key"], settings["cold_secret_key"]):
        assert secret not in shown
    assert DeltaTable(config.lake / "bronze/vehicle_positions").count() > 0, "no row is lost"


def test_an_erasure_names_the_setting_and_no_secret(config: Settings, s3: TestS3) -> None:
    wrong = on_s3(config, s3.settings() | {"cold_secret_key": "not-the-secret"})
    problems: list[str] = []
    find(wrong, "vehicle", "v1", problems.append)
    assert problems
    assert all("check CITY_COLD_ACCESS_KEY and CITY_COLD_SECRET_KEY" in problem for problem in problems)
    assert s3.user[0] not in str(problems)


def test_the_status_shows_it_as_external(config: Settings) -> None:
    cold = {"cold": "s3://bucket/cold", "cold_endpoint": "http://127.0.0.1:9", "cold_access_key": "AKIA"}
    (spec,) = (spec for spec in specs(on_s3(config, cold), simulators=False) if spec.name == "cold-storage")
    assert (spec.address, Part(spec, config.logs).state) == ("s3://bucket/cold (http://127.0.0.1:9)", "external")
    assert not [spec for spec in specs(config, simulators=False) if spec.name == "cold-storage"]


LOGIN = {"cold": "s3://bucket/cold", "cold_access_key": "AKIA", "cold_secret_key": "open sesame"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"cold": "gs://bucket/cold"}, "got gs://…; expected a folder, or s3://bucket/path"),
        ({"cold": "s3:///cold"}, "the bucket is missing"),
        ({"cold": "s3://key:sesame@bucket/cold"}, "the login is in CITY_COLD_ACCESS_KEY"),
        (LOGIN | {"cold": None}, "CITY_COLD_ACCESS_KEY, CITY_COLD_SECRET_KEY: of cold storage on S3; set CITY_COLD"),
        (LOGIN | {"cold_secret_key": None}, "CITY_COLD_ACCESS_KEY and CITY_COLD_SECRET_KEY (or …_FILE) belong"),
        (LOGIN | {"cold_endpoint": "minio:9000"}, "it begins with neither https:// nor http://"),
        (LOGIN | {"cold_endpoint": "http://key:sesame@minio:9000"}, "a login is not part of it"),
        (LOGIN | {"engine": "spark"}, "CITY_COLD on S3 is read by CITY_ENGINE=polars only"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match="for Settings") as error:
        Settings(_env_file=None, **settings)  # type: ignore[call-arg]
    assert reason in str(explain(error.value))
    assert "sesame" not in str(explain(error.value))


def test_a_machine_without_a_login_is_told_how_to_get_one() -> None:
    error = OSError("Generic S3 error\n Error performing PUT http://169.254.169.254/latest/api/token in 1ms")
    assert "set CITY_COLD_ACCESS_KEY and" in S3Server().explain(error, "s3://bucket/cold")


def test_secrets_come_from_files_and_go_to_no_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name, secret in (("ACCESS", "AKIASESAME"), ("SECRET", "open sesame")):
        (tmp_path / name).write_text(f"{secret}\n")
        monkeypatch.setenv(f"CITY_COLD_{name}_KEY_FILE", str(tmp_path / name))
    config = Settings(_env_file=None, cold="s3://bucket/cold/")  # type: ignore[call-arg]
    assert config.cold_server is not None
    assert config.cold_server.options()["AWS_SECRET_ACCESS_KEY"] == "open sesame"
    assert cold_location(config) == Location("s3://bucket/cold", config.cold_server)
    assert "sesame" not in f"{config!r} {config.cold_server!r} {cold_location(config)!r}".lower()
