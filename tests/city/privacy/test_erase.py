"""Somebody is in every store, and then in none: every byte below CITY_HOME is searched."""

import html
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from city.alerts.model import Finding
from city.alerts.store import alert_store
from city.contracts import ContractError
from city.contracts.schema import QUARANTINE
from city.drift.reference import References
from city.features.online import online_store
from city.lake.cold import archive
from city.lake.location import cold_location
from city.lake.snapshot import Snapshot
from city.lake.tables import open_table
from city.privacy import delta_tables
from city.privacy.erase import LOG, find, forget
from city.privacy.traces import Traces
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.tables.registry import table_of
from city_assets.maintenance import maintain
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.lakes import append, drive, house, stream

WHO = "Zoë-Ö'7 \U0001f697"
OTHERS = ["v1", "Zoë-Ö'71", "Zoé-Ö'7 \U0001f697"]
NOW = datetime(2026, 5, 10, 15, tzinfo=UTC)
DAYS = [(NOW - timedelta(days=n)).date() for n in range(8)]


def spellings(name: str) -> set[bytes]:
    escaped = json.dumps(name)[1:-1]
    plain = [
        name,
        escaped,
        json.dumps(escaped)[1:-1],
        html.escape(name),
        json.dumps(html.escape(name))[1:-1],
        quote(name),
    ]
    return {text.encode() for text in plain} | {name.encode("utf-16-le"), name.encode("latin-1", "ignore")}


def texts(value: Any) -> Iterator[bytes]:
    if isinstance(value, str | bytes):
        yield value.encode() if isinstance(value, str) else value
    elif isinstance(value, dict):
        yield from texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts(part)


def whereabouts(home: Path, name: str) -> list[str]:
    """Every file that has it: as bytes, in the rows of Parquet, or in a database."""
    paths = []
    # All are read before a database is opened, which has files of its own as long as it is.
    for file, content in [(path, path.read_bytes()) for path in sorted(home.rglob("*")) if path.is_file()]:
        if content.startswith(b"PAR1"):
            content += b"\n".join(texts(pl.read_parquet(file, hive_partitioning=False).rows()))
        elif content.startswith(b"SQLite"):
            with closing(sqlite3.connect(file)) as connection:
                content += "\n".join(connection.iterdump()).encode()
        if any(spelled in content for spelled in spellings(name)):
            paths.append(str(file.relative_to(home)))
    return paths


def renamed(path: Path) -> None:
    """Vehicle v0 is the one, whom no contract's pattern would let in."""
    with_names = {"v0": WHO, "v2": OTHERS[1], "v3": OTHERS[2]}
    rows = pl.read_delta(str(path)).with_columns(pl.col("vehicle_id").replace(with_names))
    table = DeltaTable(path)
    write_deltalake(table, rows, mode="overwrite", partition_by=table.metadata().partition_columns or None)


def seed_tables(config: Settings) -> None:
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(days=7), 24 * 7, every=7200), NOW)
    renamed(config.lake / "bronze/vehicle_positions")
    for name in ("silver/vehicle_positions", "features/vehicle_features"):
        house(config).build(table_of(name), DAYS, full=True)
    archive(VEHICLE_POSITIONS, config.lake, cold_location(config), timedelta(days=3), NOW)
    for layer in ("scores", "predictions", "gold"):
        rows = pl.DataFrame({"vehicle_id": [WHO, *OTHERS], "inputs": "{}", "day": DAYS[0]})
        (config.lake / layer).mkdir(exist_ok=True)
        write_deltalake(config.lake / layer / "arrival", rows, partition_by=["day"])
    entities = [
        json.dumps({"vehicle_id": name}, ensure_ascii=ascii) for name in (WHO, *OTHERS) for ascii in (True, False)
    ]
    served = pl.DataFrame({"id": [f"a-{n}" for n in range(len(entities))], "entity": entities})
    (config.lake / "served").mkdir()
    write_deltalake(config.lake / "served" / "arrival", served)
    seed_rejects(config)


def rejects() -> dict[str, bytes]:
    return {
        "utf-8": json.dumps({"vehicle_id": WHO}, ensure_ascii=False).encode(),
        "escaped": json.dumps({"vehicle_id": WHO}).encode(),
        "upper case": json.dumps({"vehicle_id": WHO}).upper().replace("\\U", "\\u").replace("ZO", "Zo").encode(),
        "all escaped": '{{"vehicle_id": "{}"}}'.format("".join(_units(WHO))).encode(),
        "cut off": b'{"vehicle_id": "' + WHO.encode(),
        "no JSON": b"vehicle " + WHO.encode() + b" stopped",
        "utf-16": json.dumps({"vehicle_id": WHO}, ensure_ascii=False).encode("utf-16"),
        "other": json.dumps({"vehicle_id": OTHERS[1]}).encode(),
        "another": b'{"vehicle_id": "v1", "speed": 7}',
    }


def _units(text: str) -> list[str]:
    encoded = text.encode("utf-16-be")
    return [f"\\u{encoded[n : n + 2].hex()}" for n in range(0, len(encoded), 2)]


def seed_rejects(config: Settings) -> None:
    path = config.lake / "quarantine/vehicle_positions"
    open_table(path, QUARANTINE)
    raw = list(rejects().values())
    columns = {"topic": VEHICLE_POSITIONS.topic, "partition": 0, "arrived": NOW, "contract_version": 1}
    rows = pl.DataFrame({"offset": range(len(raw)), "raw": raw}).with_columns(
        *(pl.lit(value).alias(name) for name, value in columns.items()), reasons=pl.lit(["malformed"])
    )
    write_deltalake(path, rows.select(pl.col(n).cast(k) for n, k in QUARANTINE.items()), mode="append")


def seed_files(config: Settings) -> None:
    names = [WHO, *OTHERS]
    pinned = pl.DataFrame({"vehicle_id": names, "speed_mean": range(len(names))})
    References(config.home / "drift/reference").update_reference("vehicle_features", pinned)
    online_store(config).write(
        "vehicle_features", names, [1] * len(names), [json.dumps({"x": n}).encode() for n in names]
    )
    title = f"machine {WHO} is not well"
    alert_store(config).sync_findings(
        [Finding(f"anomaly/{WHO}", "error", title, WHO), Finding("a/v1", "error", "v1", "v1")], "a"
    )
    texts = {
        "drift/vehicle_features.html": "".join(f"<td>{html.escape(name)}</td>" for name in names),
        "quality/vehicle_positions/index.html": json.dumps({"unexpected": [html.escape(name) for name in names]}),
        "logs/stream.log": "\n".join(f"late: {name}" for name in names),
        "run/stream.json": json.dumps({"newest": f"| vehicle |\n{WHO} | v1 |"}),
        "mlflow/models/1/input_example.json": json.dumps({"data": [names]}),
        "serving/audit.jsonl": json.dumps({"path": f"/features/{quote(WHO)}"}),
    }
    for name, text in texts.items():
        path = config.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (config.home / "dagster/storage").mkdir(parents=True)
    with closing(sqlite3.connect(config.home / "dagster/storage/index.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE event_logs (id INTEGER PRIMARY KEY, event TEXT, body BLOB)")
        cells = [json.dumps({"newest": json.dumps({"md": f"| {name} |"})}) for name in names]
        connection.executemany("INSERT INTO event_logs (event, body) VALUES (?, ?)", [(t, t.encode()) for t in cells])
        connection.execute("INSERT INTO event_logs (event) VALUES (?)", ["x" * 100 + cells[0]])
        connection.commit()
        connection.execute("DELETE FROM event_logs WHERE id = 5")
        connection.commit()


def test_somebody_is_in_every_store_and_then_in_none(config: Settings) -> None:
    seed_tables(config)
    seed_files(config)
    before = {name: whereabouts(config.home, name) for name in (WHO, *OTHERS)}
    stores = {part.split("/")[0] for part in before[WHO]}
    assert stores >= {"lake", "cold", "drift", "quality", "features", "alerts", "dagster", "logs", "run", "mlflow"}
    layers = {part.split("/")[1] for part in before[WHO] if part.startswith("lake/")}
    assert layers >= {"bronze", "quarantine", "silver", "gold", "features", "scores", "predictions", "served"}
    pinned_at = References(config.home / "drift/reference").pinned_at("vehicle_features")
    rows = {layer: pl.read_delta(str(config.lake / layer / "arrival")).height for layer in ("scores", "served")}
    counts = find(config, "vehicle", WHO)
    assert counts["quarantine/vehicle_positions"] == 7
    assert counts["cold/vehicle_positions"] > 0

    done = forget(config, "vehicle", WHO)
    assert done.problems == []
    assert set(done.rows) == set(counts) - {"features/online.db"}, "whose rows were deleted before"
    assert whereabouts(config.home, WHO) == []
    assert find(config, "vehicle", WHO) == {}

    # What is about others is where it was.
    for name in OTHERS[1:]:
        kept = {part for part in before[name] if not part.endswith((".parquet", ".json", ".db-wal"))}
        assert kept <= set(whereabouts(config.home, name)) | {"lake"}, name
    left = pl.read_delta(str(config.lake / "quarantine/vehicle_positions"))["raw"].to_list()
    assert left == [rejects()["other"], rejects()["another"]]
    assert pl.read_delta(str(config.lake / "scores/arrival")).height == rows["scores"] - 1
    assert pl.read_delta(str(config.lake / "served/arrival")).height == rows["served"] - 2
    reference = References(config.home / "drift/reference")
    assert reference.get("vehicle_features")["vehicle_id"].to_list() == OTHERS  # type: ignore[index]
    assert reference.pinned_at("vehicle_features") == pinned_at
    assert [row is not None for row in online_store(config).read("vehicle_features", [WHO, *OTHERS])] == [
        False,
        True,
        True,
        True,
    ]
    assert (config.home / "logs/stream.log").read_text().splitlines()[1:] == [f"late: {name}" for name in OTHERS]
    assert json.loads((config.home / "mlflow/models/1/input_example.json").read_text())["data"][0][1:] == OTHERS
    assert WHO not in (config.home / LOG).read_text()


def test_the_city_goes_on_after_it(config: Settings) -> None:
    """The stream appends, archived days are read and archived on, tables are kept small, and nobody comes back."""
    seed_tables(config)
    writer = BronzeStream(config.lake, VEHICLE_POSITIONS)
    append(writer, VEHICLE_POSITIONS, drive(NOW - timedelta(hours=3), 1), NOW)
    forget(config, "vehicle", WHO)
    bronze, path = house(config).path("bronze/vehicle_positions"), config.lake / "bronze/vehicle_positions"
    rows = DeltaTable(path).count()
    append(writer, VEHICLE_POSITIONS, drive(NOW - timedelta(hours=2), 1), NOW)
    assert DeltaTable(path).count() > rows
    archived = Snapshot(config.lake, cold_location(config)).archived(VEHICLE_POSITIONS)
    assert archived is not None
    assert archived.count() > 0
    archive(VEHICLE_POSITIONS, config.lake, cold_location(config), timedelta(days=2), NOW)
    for name in ("silver/vehicle_positions", "features/vehicle_features"):
        house(config).build(table_of(name), DAYS, full=True)
        maintain(DeltaTable(config.lake / name), 1)
    maintain(DeltaTable(bronze), 1)
    assert DeltaTable(path).metadata().configuration["delta.logRetentionDuration"] == "interval 10 minutes"
    assert whereabouts(config.home, WHO) == []


def log_retention(path: Path) -> str:
    return DeltaTable(path).metadata().configuration["delta.logRetentionDuration"]


def test_a_cut_of_the_log_leaves_the_retention_that_was_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared, undeclared = tmp_path / "declared", tmp_path / "undeclared"
    open_table(declared, {"a": pl.Int64()})
    pl.DataFrame({"a": [1]}).write_delta(undeclared)
    for path, retention in ((declared, "interval 10 minutes"), (undeclared, "interval 30 days")):
        delta_tables.cut_log(path)
        assert log_retention(path) == retention
        with monkeypatch.context() as patch:
            patch.setattr(DeltaTable, "create_checkpoint", lambda table: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                delta_tables.cut_log(path)
        assert log_retention(path) == retention


def test_a_log_retention_that_a_killed_erasure_left_is_replaced(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_delta(tmp_path / "cold")
    DeltaTable(tmp_path / "cold").alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
    delta_tables.cut_log(tmp_path / "cold")
    assert log_retention(tmp_path / "cold") == "interval 30 days"


@pytest.mark.parametrize(
    ("identity", "text", "is_there"),
    [
        ("v7", "v7", True),
        ("v7", "a v7.", True),
        ("v7", "v70 av7 v7-1 x_v7", False),
        ("v7", r'{"md": "a\nv7 | b"}', True),
        ("pump_1", "pump_1_s2", True),
        ("pump_1", "pump_10_s2", False),
        ("17", '{"card": "17", "n": 3}', True),
        ("17", '{"count": 17, "x": "217"}', False),
        ("17", "| 17 | a |", True),
        ('a"b\\c', r'{"id": "a\"b\\c"}', True),
        ("a/b", r"a\/b", True),
        ("MTA 1:0", "?vehicle_id=MTA+1%3a0 ", True),
        ("é", "\\\\u00E9", True),
        ("é", "&#233; &#xE9;", True),
        ("é", "caf\xe9", False),
    ],
)
def test_an_id_is_found_by_its_spelling(identity: str, text: str, is_there: bool) -> None:
    traces = Traces("id", identity)
    assert traces.are_in(text.encode()) == is_there
    covered = traces.cover(text.encode())
    assert len(covered) == len(text.encode())
    assert not traces.are_in(covered)


@pytest.mark.parametrize(
    ("identity", "text", "covered"),
    [
        ("1", '{"days": {"features/online": "1"}, "tries": "1"}', None),
        ("1", '{"vehicle_id": "1", "tries": "1"}', '{"vehicle_id": "x", "tries": "1"}'),
        ("1", r'{"event": "{\"vehicle_id\": \"1\"}"}', r'{"event": "{\"vehicle_id\": \"x\"}"}'),
        ("1", "vehicle_id=1 vehicle_id=11", "vehicle_id=x vehicle_id=11"),
        ("1", "| vehicle_id |\n| 1 |", "| vehicle_id |\n| x |"),
        ("null", '{"a": null, "b": "null"}', None),
        ("null", '{"vehicle_id": "null", "b": null}', '{"vehicle_id": "xxxx", "b": null}'),
        ("success", '{"status": "success"}', None),
        ("alice", "vehicle alice is late", "vehicle xxxxx is late"),
        ("-1", '{"offset": -1, "vehicle": -1}', None),
        ("12:30", '{"at": "12:30", "vehicle_id": "12:30"}', '{"at": "12:30", "vehicle_id": "xxxxx"}'),
        ("v7", '{"key": "v7"}', '{"key": "xx"}'),
    ],
)
def test_state_keeps_what_is_no_identity(identity: str, text: str, covered: str | None) -> None:
    assert Traces("vehicle_id", identity).cover(text.encode(), is_state=True).decode() == (covered or text)


@pytest.mark.parametrize("machine", ["press", "4711"])
def test_an_identity_that_may_be_a_word_leaves_the_alarms_and_no_state_changes(config: Settings, machine: str) -> None:
    title = f"{machine}: anomalous readings" if machine == "press" else f'machine "{machine}" is not well'
    alert_store(config).sync_findings([Finding(f"domain/equipment/machine/'{machine}'", "error", title)], "domain")
    cursor = json.dumps({"days": {"features/online": machine}})
    path = config.home / "dagster/schedules/schedules.db"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE jobs (job_body TEXT)")
        connection.execute("INSERT INTO jobs VALUES (?)", [cursor])
        connection.commit()
    assert forget(config, "machine", machine).problems == []
    assert not [part for part in whereabouts(config.home, machine) if part.startswith("alerts/")]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT job_body FROM jobs").fetchall() == [(cursor,)]


def test_an_empty_identity_is_refused(config: Settings) -> None:
    for identity in ("", "  "):
        for function in (find, forget):
            with pytest.raises(ContractError, match="identity of the vehicle is empty"):
                function(config, "vehicle", identity)


def test_a_long_file_is_searched_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("city.privacy.traces._CHUNK", 64)
    monkeypatch.setattr("city.privacy.traces._OVERLAP", 16)
    file, traces = tmp_path / "a.log", Traces("id", "vehicle7")
    for shift in range(70):
        text = "." * shift + ("vehicle7 " + "." * 30) * 9 + "vehicle77 vehicle7"
        file.write_text(text)
        assert traces.count_in_file(file) == 10
        assert traces.erase(file) == 10
        assert file.read_text() == text.replace("vehicle7 ", "x" * 8 + " ")[:-8] + "x" * 8
