"""Queries of the alert store, which change nothing."""

import json
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from typing_extensions import TypedDict

from city.alerts.model import Alarm, AlertError
from city.alerts.rows import AlarmRow, to_alarm
from city.alerts.schema import ALARMS, HISTORY, SILENCES, STATE, Database, read_state, to_seconds, to_time
from city.severity import SEVERITIES


class HistoryEntry(TypedDict):
    """An event of an alarm. `by` is the person, null for the platform itself."""

    id: int
    alarm: int
    at: datetime
    event: str
    by: str | None
    note: str | None


class Silence(TypedDict):
    """A period without messages about the causes that match `pattern`."""

    id: int
    pattern: str
    until: datetime
    by: str | None
    note: str | None


class AlertQueries:
    """Reads of the alert store. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def silences(self, now: datetime | None = None) -> list[Silence]:
        """The silences that have not ended."""
        with self._database.engine.connect() as db:
            return [
                Silence(
                    id=row["id"],
                    pattern=row["pattern"],
                    until=to_time(row["until"]),
                    by=row["by"],
                    note=row["note"],
                )
                for row in live_silences(db, to_seconds(now))
            ]

    def alarm(self, number: int) -> Alarm:
        """The alarm with that number. Raises AlertError where there is none."""
        with self._database.engine.connect() as db:
            return to_alarm(row_of(db, number), silence_patterns(db, to_seconds(None)))

    def alarms(self, closed: bool = False, now: datetime | None = None) -> list[Alarm]:
        """Open alarms (or all), the most severe and newest first."""
        with self._database.engine.connect() as db:
            query = sa.select(ALARMS) if closed else sa.select(ALARMS).where(ALARMS.c.open.is_(True))
            rows, patterns = db.execute(query).mappings().all(), silence_patterns(db, to_seconds(now))
        alarms = [alarm for alarm in (to_alarm(to_alarm_row(row), patterns) for row in rows) if closed or alarm.open]
        return sorted(alarms, key=lambda a: (not a.active, -SEVERITIES.index(a.severity), -a.last_at.timestamp()))

    def active_causes(self) -> list[str]:
        """The causes of all active alarms, sorted."""
        with self._database.engine.connect() as db:
            query = sa.select(ALARMS.c.cause).where(ALARMS.c.open.is_(True), ALARMS.c.active.is_(True))
            return list(db.execute(query.order_by(ALARMS.c.cause)).scalars())

    def active_by_severity(self) -> dict[str, int]:
        """How many alarms are active, of each severity."""
        active = sa.select(ALARMS.c.severity, sa.func.count()).where(ALARMS.c.open.is_(True), ALARMS.c.active.is_(True))
        with self._database.engine.connect() as db:
            counted: dict[str, int] = dict(db.execute(active.group_by(ALARMS.c.severity)).tuples().all())
        return {severity: counted.get(severity, 0) for severity in SEVERITIES}

    def history(self, number: int) -> list[HistoryEntry]:
        """The events of an alarm, the oldest first."""
        with self._database.engine.connect() as db:
            query = sa.select(HISTORY).where(HISTORY.c.alarm == number).order_by(HISTORY.c.id)
            return [
                HistoryEntry(
                    id=row["id"],
                    alarm=row["alarm"],
                    at=to_time(row["at"]),
                    event=row["event"],
                    by=row["by"],
                    note=row["note"],
                )
                for row in db.execute(query).mappings()
            ]

    def remembered(self, name: str) -> Any:
        """The value that `sync_findings` stored under a name; None where there is none."""
        with self._database.engine.connect() as db:
            return read_state(db, name)

    def remembered_below(self, prefix: str) -> dict[str, Any]:
        """All stored values whose names begin with `prefix`, by name."""
        with self._database.engine.connect() as db:
            query = sa.select(STATE.c.name, STATE.c.value).where(STATE.c.name.startswith(prefix, autoescape=True))
            return {name: json.loads(value) for name, value in db.execute(query.order_by(STATE.c.name))}


def to_alarm_row(row: sa.RowMapping) -> AlarmRow:
    """A selected row of the table of alarms as a dictionary, which may be changed."""
    return cast(AlarmRow, dict(row))


def row_of(db: sa.Connection, number: int) -> AlarmRow:
    """The row of an alarm. Raises AlertError where there is none."""
    row = db.execute(sa.select(ALARMS).where(ALARMS.c.id == number)).mappings().first()
    if row is None:
        raise AlertError(f"no alarm {number}; `city alerts list` shows them")
    return to_alarm_row(row)


def live_silences(db: sa.Connection, moment: float) -> list[sa.RowMapping]:
    """The rows of the silences that have not ended."""
    query = sa.select(SILENCES).where(SILENCES.c.until > moment).order_by(SILENCES.c.id)
    return list(db.execute(query).mappings().all())


def silence_patterns(db: sa.Connection, moment: float) -> list[str]:
    """The patterns of the silences that have not ended."""
    return [silence["pattern"] for silence in live_silences(db, moment)]
