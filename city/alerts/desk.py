"""The alarm desk: alarms, silences and what is to be sent, in SQLite or in PostgreSQL (CITY_ALERTS_URL)."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa

from city.alerts.model import SEVERITIES, Alarm, AlertError, Finding
from city.settings import Settings

_META = sa.MetaData()
_ALARMS = sa.Table(
    "alarms",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("cause", sa.String(500), nullable=False),
    sa.Column("severity", sa.String(10), nullable=False),
    sa.Column("title", sa.String(1000), nullable=False),
    sa.Column("group", sa.String(200), nullable=False),
    sa.Column("detail", sa.Text),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("acknowledged", sa.Boolean, nullable=False),
    sa.Column("open", sa.Boolean, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("first_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
    sa.Column("active_at", sa.Float, nullable=False),
    sa.Column("assignee", sa.String(200)),
    sa.Column("escalations", sa.Integer, nullable=False),
)
# The database itself sees to it that a cause has one open alarm.
sa.Index(
    "one_open_alarm",
    _ALARMS.c.cause,
    unique=True,
    sqlite_where=_ALARMS.c.open.is_(True),
    postgresql_where=_ALARMS.c.open.is_(True),
)
_HISTORY = sa.Table(
    "alarm_history",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("alarm", sa.Integer, nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("event", sa.String(30), nullable=False),
    sa.Column("by", sa.String(200)),
    sa.Column("note", sa.Text),
)
_SILENCES = sa.Table(
    "silences",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("pattern", sa.String(500), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("by", sa.String(200)),
    sa.Column("note", sa.Text),
)
_OUTBOX = sa.Table(
    "outbox",
    _META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(300), nullable=False, unique=True),
    sa.Column("channel", sa.String(100), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("sent_at", sa.Float),
    sa.Column("error", sa.Text),
)
_STATE = sa.Table("state", _META, sa.Column("name", sa.String(100), primary_key=True), sa.Column("value", sa.Text))


@dataclass(frozen=True)
class Letter:
    """A message that waits to be sent on a channel."""

    id: int
    channel: str
    message: dict[str, Any]
    attempts: int


class Desk:
    """Every change is one transaction, and is written down in the alarm's history."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        _META.create_all(self._engine)

    def report(
        self, findings: Iterable[Finding], scope: str, now: datetime | None = None
    ) -> tuple[list[int], list[int]]:
        """All that is wrong now within a `scope` (causes that begin with it). Raises alarms, counts repeats, and clears
        those of the scope that are no longer wrong. Returns the ids of alarms that became active, and that cleared."""
        moment = _seconds(now)
        raised, cleared, seen = [], [], set[str]()
        with self._engine.begin() as db:
            for finding in findings:
                if not finding.cause.startswith(scope):
                    raise AlertError(f"cause {finding.cause!r} is not of the scope {scope!r}")
                seen.add(finding.cause)
                number, became_active = self._raise(db, finding, moment)
                if became_active:
                    raised.append(number)
            query = sa.select(_ALARMS).where(
                _ALARMS.c.active.is_(True), _ALARMS.c.cause.startswith(scope, autoescape=True)
            )
            for row in db.execute(query).mappings().all():
                if row["cause"] not in seen:
                    self._clear(db, row, moment, None, "no longer so")
                    cleared.append(row["id"])
        return raised, cleared

    def acknowledge(self, number: int, by: str, note: str = "", now: datetime | None = None) -> Alarm:
        with self._changing(number) as (db, row):
            values = {"acknowledged": True, "open": bool(row["active"])}
            db.execute(_ALARMS.update().where(_ALARMS.c.id == number).values(**values))
            _note(db, number, _seconds(now), "acknowledged", by, note)
        return self.alarm(number)

    def clear(self, number: int, by: str, note: str = "", now: datetime | None = None) -> Alarm:
        """By hand. Should it still be wrong, the next report makes it active again."""
        with self._changing(number) as (db, row):
            if row["active"]:
                self._clear(db, row, _seconds(now), by, note)
        return self.alarm(number)

    def assign(self, number: int, to: str, by: str, now: datetime | None = None) -> Alarm:
        with self._changing(number) as (db, _):
            db.execute(_ALARMS.update().where(_ALARMS.c.id == number).values(assignee=to))
            _note(db, number, _seconds(now), "assigned", by, to)
        return self.alarm(number)

    def silence(self, pattern: str, lasting: timedelta, by: str, note: str = "", now: datetime | None = None) -> int:
        """No messages for causes that match the pattern (* and ? as in file names) until it ends. Returns its id."""
        if lasting <= timedelta(0):
            raise AlertError(f"a silence of {lasting} has ended before it began")
        with self._engine.begin() as db:
            until = _seconds(now) + lasting.total_seconds()
            done = db.execute(_SILENCES.insert().values(pattern=pattern, until=until, by=by, note=note))
            return int(done.inserted_primary_key[0])  # type: ignore[index]

    def unsilence(self, number: int) -> None:
        with self._engine.begin() as db:
            if not db.execute(_SILENCES.delete().where(_SILENCES.c.id == number)).rowcount:
                raise AlertError(f"no silence {number}; `city alerts silences` lists them")

    def silences(self, now: datetime | None = None) -> list[dict[str, Any]]:
        with self._engine.connect() as db:
            query = sa.select(_SILENCES).where(_SILENCES.c.until > _seconds(now)).order_by(_SILENCES.c.id)
            return [dict(row) | {"until": _time(row["until"])} for row in db.execute(query).mappings()]

    def escalate(self, after: timedelta, now: datetime | None = None) -> list[int]:
        """Raises the severity of alarms that stay active and unacknowledged for `after`, again for each further
        `after`, up to critical. Returns their ids."""
        moment, found = _seconds(now), []
        with self._engine.begin() as db:
            query = sa.select(_ALARMS).where(_ALARMS.c.active.is_(True), _ALARMS.c.acknowledged.is_(False))
            for row in db.execute(query).mappings().all():
                due = row["active_at"] + (row["escalations"] + 1) * after.total_seconds() <= moment
                step = SEVERITIES.index(row["severity"]) + 1
                if due and step < len(SEVERITIES):
                    values = {"severity": SEVERITIES[step], "escalations": row["escalations"] + 1}
                    db.execute(_ALARMS.update().where(_ALARMS.c.id == row["id"]).values(**values))
                    _note(db, row["id"], moment, "escalated", None, SEVERITIES[step])
                    found.append(row["id"])
        return found

    def alarm(self, number: int) -> Alarm:
        """Raises AlertError."""
        with self._engine.connect() as db:
            row = db.execute(sa.select(_ALARMS).where(_ALARMS.c.id == number)).mappings().first()
        if row is None:
            raise AlertError(f"no alarm {number}; `city alerts list` shows them")
        return self._alarm(row, self._patterns(None))

    def alarms(self, closed: bool = False, now: datetime | None = None) -> list[Alarm]:
        """Open alarms (or all), the gravest and newest first."""
        with self._engine.connect() as db:
            query = sa.select(_ALARMS) if closed else sa.select(_ALARMS).where(_ALARMS.c.open.is_(True))
            rows = db.execute(query).mappings().all()
        patterns = self._patterns(now)
        found = [self._alarm(row, patterns) for row in rows]
        return sorted(found, key=lambda a: (not a.active, -SEVERITIES.index(a.severity), -a.last_at.timestamp()))

    def history(self, number: int) -> list[dict[str, Any]]:
        with self._engine.connect() as db:
            query = sa.select(_HISTORY).where(_HISTORY.c.alarm == number).order_by(_HISTORY.c.id)
            return [dict(row) | {"at": _time(row["at"])} for row in db.execute(query).mappings()]

    def post(self, key: str, channel: str, message: Mapping[str, Any], now: datetime | None = None) -> bool:
        """Puts a message in the outbox, unless one of that key was ever there."""
        try:
            with self._engine.begin() as db:
                values = {"key": key, "channel": channel, "message": json.dumps(message, default=str)}
                db.execute(_OUTBOX.insert().values(**values, attempts=0, next_at=_seconds(now)))
        except sa.exc.IntegrityError:
            return False
        return True

    def due(self, now: datetime | None = None) -> list[Letter]:
        with self._engine.connect() as db:
            query = sa.select(_OUTBOX).where(_OUTBOX.c.sent_at.is_(None), _OUTBOX.c.next_at <= _seconds(now))
            rows = db.execute(query.order_by(_OUTBOX.c.id)).mappings().all()
        return [Letter(row["id"], row["channel"], json.loads(row["message"]), row["attempts"]) for row in rows]

    def sent(
        self, letter: Letter, error: str | None, again_at: datetime | None = None, now: datetime | None = None
    ) -> None:
        """Writes down what became of an attempt; with `again_at` it is made again."""
        moment = _seconds(now)
        values: dict[str, Any] = {"attempts": letter.attempts + 1, "error": error}
        values |= {"sent_at": moment} if error is None else {"next_at": _seconds(again_at) if again_at else 1e18}
        with self._engine.begin() as db:
            db.execute(_OUTBOX.update().where(_OUTBOX.c.id == letter.id).values(**values))

    def failures(self) -> list[dict[str, Any]]:
        """Messages that have not been sent, and why."""
        with self._engine.connect() as db:
            query = sa.select(_OUTBOX.c.channel, _OUTBOX.c.key, _OUTBOX.c.attempts, _OUTBOX.c.error)
            rows = db.execute(query.where(_OUTBOX.c.sent_at.is_(None), _OUTBOX.c.attempts > 0)).mappings()
            return [dict(row) for row in rows]

    def remember(self, name: str, value: Any) -> Any:
        """Keeps a small value under a name; returns what was there before."""
        with self._engine.begin() as db:
            row = db.execute(sa.select(_STATE.c.value).where(_STATE.c.name == name)).first()
            db.execute(_STATE.delete().where(_STATE.c.name == name))
            db.execute(_STATE.insert().values(name=name, value=json.dumps(value)))
        return json.loads(row[0]) if row else None

    def _raise(self, db: sa.Connection, finding: Finding, moment: float) -> tuple[int, bool]:
        query = sa.select(_ALARMS).where(_ALARMS.c.cause == finding.cause, _ALARMS.c.open.is_(True))
        row = db.execute(query).mappings().first()
        detail = json.dumps(finding.detail, default=str) if finding.detail else None
        if row is None:
            values = asdict(finding) | {"detail": detail}
            fresh = {"active": True, "acknowledged": False, "open": True, "count": 1, "escalations": 0}
            times = {"first_at": moment, "last_at": moment, "active_at": moment}
            done = db.execute(_ALARMS.insert().values(**values, **fresh, **times))
            number = int(done.inserted_primary_key[0])  # type: ignore[index]
            _note(db, number, moment, "raised", None, finding.title)
            return number, True
        again = not row["active"]
        changed: dict[str, Any] = {
            "count": row["count"] + 1,
            "last_at": moment,
            "title": finding.title,
            "detail": detail,
            "active": True,
        }
        if again:  # it came back before anybody closed it
            changed |= {"acknowledged": False, "active_at": moment, "escalations": 0, "severity": finding.severity}
            _note(db, row["id"], moment, "raised again", None, finding.title)
        db.execute(_ALARMS.update().where(_ALARMS.c.id == row["id"]).values(**changed))
        return int(row["id"]), again

    def _clear(self, db: sa.Connection, row: Any, moment: float, by: str | None, note: str) -> None:
        values = {"active": False, "open": not row["acknowledged"]}
        db.execute(_ALARMS.update().where(_ALARMS.c.id == row["id"]).values(**values))
        _note(db, row["id"], moment, "cleared", by, note)

    @contextmanager
    def _changing(self, number: int) -> Iterator[tuple[sa.Connection, Any]]:
        self.alarm(number)
        with self._engine.begin() as db:
            yield db, db.execute(sa.select(_ALARMS).where(_ALARMS.c.id == number)).mappings().one()

    def _patterns(self, now: datetime | None) -> list[str]:
        return [silence["pattern"] for silence in self.silences(now)]

    def _alarm(self, row: Any, patterns: list[str]) -> Alarm:
        return Alarm(
            id=row["id"],
            cause=row["cause"],
            severity=row["severity"],
            title=row["title"],
            group=row["group"],
            active=bool(row["active"]),
            acknowledged=bool(row["acknowledged"]),
            count=row["count"],
            first_at=_time(row["first_at"]),
            last_at=_time(row["last_at"]),
            assignee=row["assignee"],
            escalations=row["escalations"],
            silenced=any(fnmatchcase(row["cause"], pattern) for pattern in patterns),
            detail=json.loads(row["detail"]) if row["detail"] else None,
        )


def desk(config: Settings) -> Desk:
    if config.alerts_url:
        return Desk(config.alerts_url.get_secret_value())
    folder = config.home / "alerts"
    folder.mkdir(parents=True, exist_ok=True)
    return Desk(f"sqlite:///{folder / 'alerts.db'}")


def _note(db: sa.Connection, alarm: int, moment: float, event: str, by: str | None, note: str) -> None:
    db.execute(_HISTORY.insert().values(alarm=alarm, at=moment, event=event, by=by, note=note))


def _seconds(moment: datetime | None) -> float:
    return (moment or datetime.now(UTC)).timestamp()


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
