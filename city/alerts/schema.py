"""The tables of the alert store, in SQLite or in PostgreSQL, and transactions on them."""

import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from city.alerts.channels import Address

FLAPPING = "flapping/"
"""Precedes the severity in `told` where the last message was that a cause flaps."""
NEVER = 1e18
"""The value of `next_at` for a message that is given up."""

_META = sa.MetaData()
ALARMS = sa.Table(
    "alarms",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("cause", sa.String(500), nullable=False),
    sa.Column("severity", sa.String(10), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("group", sa.String(200), nullable=False),
    sa.Column("detail", sa.Text),
    sa.Column("labels", sa.Text),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("acknowledged", sa.Boolean, nullable=False),
    sa.Column("open", sa.Boolean, nullable=False),
    sa.Column("flapping", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("told", sa.String(20)),
    sa.Column("told_to", sa.Text, nullable=False, server_default="[]"),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("first_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
    sa.Column("active_at", sa.Float, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False, server_default="0"),
    sa.Column("changes", sa.Text, nullable=False, server_default="[]"),
    sa.Column("assignee", sa.String(200)),
    sa.Column("escalations", sa.Integer, nullable=False),
)
# The database itself guarantees that a cause has one open alarm.
sa.Index(
    "one_open_alarm",
    ALARMS.c.cause,
    unique=True,
    sqlite_where=ALARMS.c.open.is_(True),
    postgresql_where=ALARMS.c.open.is_(True),
)
HISTORY = sa.Table(
    "alarm_history",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("alarm", sa.Integer, nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("event", sa.String(30), nullable=False),
    sa.Column("by", sa.String(200)),
    sa.Column("note", sa.Text),
)
SILENCES = sa.Table(
    "silences",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("pattern", sa.String(500), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("by", sa.String(200)),
    sa.Column("note", sa.Text),
)
OUTBOX = sa.Table(
    "outbox",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(300), nullable=False, unique=True),
    sa.Column("channel", sa.String(100), nullable=False),
    sa.Column("alarm", sa.Integer),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("posted_at", sa.Float, nullable=False, server_default="0"),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("leased_until", sa.Float, nullable=False, server_default="0"),
    sa.Column("refused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("sent_at", sa.Float),
    sa.Column("error", sa.Text),
)
sa.Index("outbox_waiting", OUTBOX.c.sent_at, OUTBOX.c.next_at)
STATE = sa.Table("state", _META, sa.Column("name", sa.String(100), primary_key=True), sa.Column("value", sa.Text))

_LOCK = 0x0C17A1A8  # any number that no other program locks in the same PostgreSQL
_WRITES, _STORE, _NUMBERED = "writes", "store", "alarms before the store id"
_JSON = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
_LAST_SECONDS = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class Database:
    """An engine for the store at `url` (of SQLAlchemy), whose tables are created or upgraded. Thread-safe.

    `to` are the channels that messages go to; an upgrade needs them for alarms that have had messages before.
    """

    def __init__(self, url: str, to: Sequence[Address] = ()) -> None:
        self._is_sqlite = url.startswith("sqlite")
        self.engine = sa.create_engine(url, connect_args={"timeout": 30} if self._is_sqlite else {})
        if self._is_sqlite:
            _begin_explicitly(self.engine)
        with self.changing() as db:
            _META.create_all(db)
            _upgrade(db, to)
            self.id = _store_id(db)
            """The permanent id of the store. It tells cities apart, because their alarms have the same numbers."""
            self._last_without_store_id = int(read_state(db, _NUMBERED) or 0)

    @contextmanager
    def changing(self) -> Iterator[sa.Connection]:
        """A transaction that excludes every other change, also by another process."""
        with self.engine.connect().execution_options(**{_WRITES: True}) as db, db.begin():
            if not self._is_sqlite:
                db.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield db

    def dedup_key(self, alarm: int) -> str:
        """The key of an alarm's incident. PagerDuty resolves an incident by the key that opened it, so alarms older
        than the store id keep their old key."""
        return f"city-alarm-{alarm}" if alarm <= self._last_without_store_id else f"city-{self.id}-{alarm}"


def read_state(db: sa.Connection, name: str) -> Any:
    """The value stored under a name; None where there is none."""
    text = db.execute(sa.select(STATE.c.value).where(STATE.c.name == name)).scalar()
    return None if text is None else json.loads(text)


def write_state(db: sa.Connection, name: str, value: object) -> None:
    """Stores a value under a name; None deletes it."""
    write_state_text(db, name, state_text(value))


def state_text(value: object) -> str | None:
    """A value encoded for the store. Callers encode megabytes of state before a transaction, because all other changes
    wait for the transaction."""
    return None if value is None else orjson.dumps(value, option=_JSON).decode()


def write_state_text(db: sa.Connection, name: str, text: str | None) -> None:
    """Stores what `state_text` returned."""
    db.execute(STATE.delete().where(STATE.c.name == name))
    if text is not None:
        db.execute(STATE.insert().values(name=name, value=text))


def add_history(db: sa.Connection, alarm: int, moment: float, event: str, by: str | None, note: str) -> None:
    """Adds an event to an alarm's history."""
    db.execute(HISTORY.insert().values(alarm=alarm, at=moment, event=event, by=by, note=note))


def to_seconds(moment: datetime | None) -> float:
    """A time as seconds since the epoch; the current time for None."""
    return (moment or datetime.now(UTC)).timestamp()


def to_time(seconds: float) -> datetime:
    """The time in UTC. A silence of an earlier version may end after the last year that datetime knows."""
    return datetime.fromtimestamp(min(seconds, _LAST_SECONDS), UTC)


def _begin_explicitly(engine: sa.Engine) -> None:
    """Makes SQLAlchemy begin SQLite's transactions. SQLite's driver begins one only at its first change, and another
    process may have changed the store before that."""

    @sa.event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begun(db: sa.Connection) -> None:
        db.exec_driver_sql("BEGIN IMMEDIATE" if db.get_execution_options().get(_WRITES) else "BEGIN")


def _upgrade(db: sa.Connection, to: Sequence[Address]) -> None:
    """Adds the columns and indexes that a store of an earlier version lacks."""
    for table in (ALARMS, HISTORY, OUTBOX):
        existing = {column["name"] for column in sa.inspect(db).get_columns(table.name)}
        for column in table.c:
            if column.name not in existing:
                declared = sa.schema.CreateColumn(column).compile(dialect=db.dialect)
                db.exec_driver_sql(f'ALTER TABLE "{table.name}" ADD COLUMN {declared}')
        for index in table.indexes:
            index.create(db, checkfirst=True)
        if table is ALARMS and "told" not in existing:  # messages were sent at once
            db.execute(ALARMS.update().values(changed_at=ALARMS.c.last_at))
            db.execute(ALARMS.update().where(ALARMS.c.active.is_(True)).values(told=ALARMS.c.severity))
        if table is ALARMS and "told_to" not in existing:
            notified = db.execute(sa.select(ALARMS.c.id, ALARMS.c.told).where(ALARMS.c.told.is_not(None))).all()
            for number, notified_severity in notified:
                # A flapping cause may have had messages of a higher severity before. To resolve an incident that does
                # not exist does no harm, and an incident that exists must not stay open.
                severity = notified_severity.removeprefix(FLAPPING)
                names = json.dumps(sorted(address.name for address in to if address.follows or address.wants(severity)))
                db.execute(ALARMS.update().where(ALARMS.c.id == number).values(told_to=names))


def _store_id(db: sa.Connection) -> str:
    """The id of the store, created the first time."""
    store_id = read_state(db, _STORE)
    if store_id is None:
        write_state(db, _STORE, store_id := uuid.uuid4().hex)
        write_state(db, _NUMBERED, db.execute(sa.select(sa.func.max(ALARMS.c.id))).scalar() or 0)
    return str(store_id)
