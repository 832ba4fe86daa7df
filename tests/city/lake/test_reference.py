"""Tables that people edit: whole or not at all, and what they wrote stays."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from city.lake.reference import commission, read, reference_table, reference_tables, update
from city.settings import Settings
from city.tables.model import TableError
from city.tables.schema import schema
from city_assets.equipment.assets import episodes, with_episodes
from city_assets.equipment.models import ANOMALIES
from city_assets.equipment.tables import ANOMALY_EVENTS, MACHINE_SENSORS, MACHINE_TYPES, MACHINES
from tests.commands import city, fails

ROWS = [{"machine_id": f"pump_00{n}", "kind": "pump", "location": "metro", "criticality": n} for n in (1, 2)]
START = datetime(2026, 5, 4, 12, tzinfo=UTC)


def test_what_is_commissioned_once_stays_as_people_edit_it(config: Settings, tmp_path: Path) -> None:
    assert commission(config.lake, "machines", ROWS)
    file = tmp_path / "machines.csv"
    city("reference", "export", "machines", str(file))
    file.write_text(file.read_text().replace("pump_002,pump,metro,2", "pump_002,pump,harbour,3"))
    assert "machines: 2 rows" in city("reference", "import", "machines", str(file))
    assert not commission(config.lake, "machines", ROWS)
    assert read(config.lake, MACHINES)["location"].to_list() == ["metro", "harbour"]
    assert "machines" in city("reference", "list")
    assert city("reference", "export", "machines") == file.read_text()
    history = DeltaTable(config.lake / MACHINES.id).history()
    assert {"commissioned", "imported from machines.csv"} <= {entry.get("why") for entry in history}
    assert pl.read_delta(str(config.lake / MACHINES.id), version=1)["location"].to_list() == ["metro", "metro"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("machine_id,kind,location\na,pump,metro", "the column criticality is missing"),
        ("machine_id,kind,location,criticality,x\na,pump,metro,1,2", "there is no column x; it has machine_id"),
        ("machine_id,kind,location,criticality\na,pump,metro,soon", "row 1: 'soon' in criticality is no integer"),
        ("machine_id,kind,location,criticality\na,pump,,1", "row 1: location is empty, and must not be"),
        ("machine_id,kind,location,criticality\na,p,m,1\na,q,m,1", "machine_id 'a' stands twice: keep one of them"),
    ],
)
def test_a_file_with_a_mistake_changes_nothing(config: Settings, tmp_path: Path, text: str, says: str) -> None:
    commission(config.lake, "machines", ROWS)
    file = tmp_path / "wrong.csv"
    file.write_text(text)
    assert says in fails("reference", "import", "machines", str(file))
    assert read(config.lake, MACHINES).height == 2


def test_what_is_unknown_is_answered_with_what_is_known(config: Settings) -> None:
    assert "known: " in fails("reference", "export", "moons")
    assert {MACHINES.id, MACHINE_SENSORS.id, ANOMALY_EVENTS.id} <= {table.id for table in reference_tables()}
    with pytest.raises(TableError, match="no table 'reference/moons'"):
        reference_table("moons")


def scores(*minutes: float, machine: str = "pump_001", signal: str = "vibration_now") -> pl.DataFrame:
    """An anomaly at each of these."""
    shares = [0.9 if name == signal else 0.02 for name in ANOMALIES.inputs]
    rows = [(machine, START + timedelta(minutes=n), "anomaly", [2.0 + n / 100, 5.0, *shares]) for n in minutes]
    return pl.DataFrame(rows, ["machine_id", "timestamp", "prediction", "output"], orient="row")


def test_readings_in_a_row_are_one_event_and_single_ones_none() -> None:
    few = [n / 12 for n in range(24)]
    grouped = episodes(pl.concat([scores(*few, 10, 30, *[40 + n for n in few]), scores(*few, machine="motor_002")]))
    assert grouped.select("machine_id", "readings").rows() == [("motor_002", 24), ("pump_001", 24), ("pump_001", 24)]
    assert grouped["signal"].unique().to_list() == ["vibration"]
    assert grouped["peak_score"].max() == pytest.approx(2 + (40 + few[-1]) / 100)


def test_what_people_wrote_of_an_event_stays_while_it_goes_on(config: Settings) -> None:
    first = episodes(scores(*[n / 12 for n in range(12)]))
    update(config.lake, ANOMALY_EVENTS, lambda events: with_episodes(events, first), "scores")
    written = pl.lit("bearing").alias("root_cause"), pl.lit(value=True).alias("confirmed")
    update(config.lake, ANOMALY_EVENTS, lambda events: events.with_columns(*written), "by hand")
    longer = episodes(scores(*[n / 12 for n in range(36)], *[60 + n / 12 for n in range(12)]))
    update(config.lake, ANOMALY_EVENTS, lambda events: with_episodes(events, longer), "scores")
    stored = read(config.lake, ANOMALY_EVENTS)
    assert stored["readings"].to_list() == [36, 12]
    assert stored["root_cause"].to_list() == ["bearing", None]
    assert stored["confirmed"].to_list() == [True, None]
    version = DeltaTable(config.lake / ANOMALY_EVENTS.id).version()
    update(config.lake, ANOMALY_EVENTS, lambda events: with_episodes(events, longer), "scores")
    assert DeltaTable(config.lake / ANOMALY_EVENTS.id).version() == version


def test_a_table_of_an_earlier_release_and_a_file_without_the_new_columns_are_taken(config: Settings) -> None:
    table = reference_table("machines")
    older = replace(table, columns=tuple(column for column in table.columns if not column.nullable))
    row = {"machine_id": "pump_001", "kind": "pump", "location": "waterworks", "criticality": 2}
    update(config.lake, older, lambda _: pl.DataFrame([row], schema=schema(older)), "an earlier release")
    assert read(config.lake, table).row(0, named=True) == row | dict.fromkeys(
        ("manufacturer", "model", "installed", "status")
    )
    update(config.lake, table, lambda rows: rows.drop("status").with_columns(model=pl.lit("P-100")), "edited")
    stored = read(config.lake, table).row(0, named=True)
    assert (stored["model"], stored["status"]) == ("P-100", None)
    file = config.home / "machines.csv"
    file.write_text(
        "machine_id,kind,location,criticality,manufacturer,installed\n"
        "MACHINE_001,press,Factory_A_Line_1,3,Acme,2024-05-01\n"
    )
    assert "machines: 1 rows" in city("reference", "import", "machines", str(file))
    assert read(config.lake, table).select("machine_id", "installed").row(0) == ("MACHINE_001", date(2024, 5, 1))


TYPES = "kind,life_unit,life_cap,order_below,replace_below,stop_below"


def test_the_types_of_machines_are_edited_and_a_unit_that_is_none_is_named(config: Settings) -> None:
    file = config.home / "types.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{TYPES}\npump,h,500,350,150,50\npress,weeks,10,7,3,1\n")
    assert "row 2: 'weeks' in life_unit is none of h, d, cycles" in fails(
        "reference", "import", "machine_types", str(file)
    )
    file.write_text(f"{TYPES}\npump,h,500,350,150,50\n")  # without the hours of a cycle, which it does not need
    assert "machine_types: 1 rows" in city("reference", "import", "machine_types", str(file))
    assert read(config.lake, MACHINE_TYPES)["life_cap"].to_list() == [500.0]


def test_a_signal_may_have_a_range_for_each_condition_but_only_one(config: Settings) -> None:
    row = {"machine_id": "m", "signal": "p", "sensor_id": "s", "normal_minimum": 0.0, "normal_maximum": 1.0}
    rows = pl.DataFrame([row | {"condition": condition} for condition in ("1", "2", None)])
    assert update(config.lake, MACHINE_SENSORS, lambda _: rows, "by hand") == 3
    twice = pl.concat([rows, rows.tail(1)])
    with pytest.raises(TableError, match="condition None stands twice"):
        update(config.lake, MACHINE_SENSORS, lambda _: twice, "by hand")
