"""The alarm desk: alarms, silences and what is to be sent, in SQLite or in PostgreSQL (CITY_ALERTS_URL).

What is sent follows from what is: an alarm's row holds what people were last told of it (`told`), and each change, in
its own transaction, compares that with how the alarm stands and puts the difference in the outbox. So nothing that
comes between (a silence, a wrong setting, a kill) loses a message: the difference is still there at the next look.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import orjson
import sqlalchemy as sa

from city.alerts.channels import Address, addresses
from city.alerts.model import Alarm, AlertError, Event, Finding
from city.settings import Settings
from city.severity import SEVERITIES, Severity

RETURNS_WITHIN = timedelta(minutes=10)
"""A cause that is back so soon was never away: its acknowledgement holds."""
FLAPS, FLAPS_WITHIN = 4, timedelta(hours=1)
"""A cause flaps when it is raised and this is its fourth change, or a later one, in so long: the third outage. So it
sends raised, cleared, raised, cleared and flapping, and never an end as something new."""
STEADY_AFTER = timedelta(minutes=30)
"""Flapping ends without a change for so long, and with at most `FLAPS - 2` of them in `FLAPS_WITHIN`: then the message
that says how it is, and what may follow before it flaps again, are still at most five in any hour."""
FORGOTTEN_AFTER = timedelta(days=1)
"""An active alarm that no look has confirmed or called unknown for so long, while there were looks, is of something
that nobody looks at any more."""
CLOSED_AFTER = timedelta(days=1)
"""A cleared alarm that nobody has acknowledged is closed after so long."""
LONGEST_SILENCE = timedelta(days=366)
_PAUSE = timedelta(minutes=10)  # without a look: from then on time is counted anew
_LASTING = "run/"
"""What is reported when it happens, and not again: only another such report ends it."""
_LEASE_SECONDS = 60.0
_EXPIRY = timedelta(days=7)
"""A message that no channel took for so long is news no more."""
_PRUNE_SECONDS = 3600.0
CHANNEL_ALARMS = "system/alert_channels/"
"""Before the name of a channel: the cause of its alarm, which is told on the other channels."""
_TITLE, _GROUP = 500, 200
_FLAPPING = "flapping/"
"""Before the severity, where people were last told that a cause flaps."""
_LOCK = 0x0C17A1A8  # any number that no other program locks in the same PostgreSQL

_META = sa.MetaData()
_ALARMS = sa.Table(
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
    sa.Column("at", sa.Float, nullable=False, index=True),
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
sa.Index("outbox_waiting", _OUTBOX.c.sent_at, _OUTBOX.c.next_at)
_STATE = sa.Table("state", _META, sa.Column("name", sa.String(100), primary_key=True), sa.Column("value", sa.Text))
OVERVIEW = "checks"
"""What is remembered of all asset checks: `passed` (names), and `failed` (by name)."""
_NEVER = 1e18
_LAST_SECONDS = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
_JSON = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
_WRITES, _LOOKS, _STORE, _NUMBERED = "writes", "looks", "store", "alarms before the store id"


@dataclass(frozen=True)
class Letter:
    """A message of one alarm that waits to be sent on a channel, and is leased to whoever has it."""

    id: int
    channel: str
    message: dict[str, Any]
    attempts: int


@dataclass(frozen=True)
class Unsent:
    """The messages of a channel that it has not taken."""

    name: str
    waiting: int
    """So many are tried again, and"""
    given_up: int
    """so many are not, for they are a week old."""
    since: datetime | None
    """Since when the oldest that waits does, None where none waits."""
    attempts: int
    """How often one of those that wait was tried, at most."""
    error: str | None
    """What came of the oldest that was tried."""


@dataclass(frozen=True)
class Reported:
    """The ids of alarms that a report has raised (or raised again), and cleared."""

    raised: list[int]
    cleared: list[int]


class Desk:
    """Every change is one transaction, with what it means for people: the alarm, its history and the outbox.

    `to` are the channels that messages go to; what has ended is kept for `retention`. Safe to use from several threads
    and processes: a change locks the store.
    """

    def __init__(self, url: str, to: Sequence[Address] = (), retention: timedelta = timedelta(days=30)) -> None:
        self._to = tuple(to)
        self._retention, self._pruned_at = retention.total_seconds(), float("-inf")
        self._sqlite = url.startswith("sqlite")
        self._engine = sa.create_engine(url, connect_args={"timeout": 30} if self._sqlite else {})
        if self._sqlite:
            _begin_by_hand(self._engine)
        with self._changing() as db:
            _META.create_all(db)
            _upgrade(db, self._to)
            self.id = _store_id(db)
            """Of the store, for good: alarms of several cities have the same numbers."""
            self._last_without_store_id = _last_without_store_id(db)

    def report(
        self,
        findings: Iterable[Finding],
        scope: str | None = None,
        now: datetime | None = None,
        remember: Mapping[str, Any] | None = None,
    ) -> Reported:
        """What looks have found. With a `scope` the findings are all that there is of causes that begin with it: its
        other alarms are of things that are no more, and cleared. `remember` (name → value; None forgets the name) is
        kept by the same transaction (see `remembered`): a reader's position cannot be ahead of its alarms, or behind.

        Raises AlertError for a cause that is not of the scope.
        """
        moment, raised, cleared = _seconds(now), list[int](), list[int]()
        latest = {finding.cause: finding for finding in findings}
        if scope is not None and (foreign := [cause for cause in latest if not cause.startswith(scope)]):
            raise AlertError(f"cause {foreign[0]!r} is not of the scope {scope!r}")
        repeated: list[dict[str, Any]] = []
        unknown: list[int] = []
        # Before the transaction: what is remembered of a large city is megabytes, and everybody waits for the store.
        encoded = {name: _encoded(value) for name, value in (remember or {}).items()}
        with self._changing() as db:
            patterns = self._patterns(db, moment)
            rows = self._open(db, scope)
            for cause, finding in latest.items():
                row = rows.get(cause)
                if finding.state == "failing" and row is not None and _is_repeat(row, finding):
                    repeated.append({"_id": row["id"], "last_at": moment, **_said(finding)})
                elif finding.state == "failing":
                    number, became_active = self._raise(db, row, finding, moment, patterns)
                    if became_active:
                        raised.append(number)
                elif finding.state == "unknown" and row is not None:
                    unknown.append(row["id"])
                elif finding.state == "passing" and row is not None and row["active"]:
                    self._clear(db, row, moment, None, "no longer so", patterns)
                    cleared.append(row["id"])
            for cause, row in rows.items():
                if scope is not None and cause not in latest and row["active"]:
                    self._clear(db, row, moment, None, "no longer looked at", patterns)
                    cleared.append(row["id"])
            if repeated:
                update = _ALARMS.update().where(_ALARMS.c.id == sa.bindparam("_id"))
                db.execute(update.values(count=_ALARMS.c.count + 1), repeated)
            if unknown:
                db.execute(_ALARMS.update().where(_ALARMS.c.id.in_(unknown)).values(last_at=moment))
            for name, text in encoded.items():
                _store_text(db, name, text)
        return Reported(raised, cleared)

    def tick(self, escalate_after: timedelta | None = None, now: datetime | None = None) -> list[int]:
        """What time alone brings: silences end, alarms that nobody acknowledges get graver (again for each further
        `escalate_after`, up to critical), flapping ends, dealt-with alarms close. Returns the ids of those escalated.
        """
        moment, escalated = _seconds(now), list[int]()
        with self._changing() as db:
            patterns = self._patterns(db, moment)
            since = _looked_since(db, moment)
            # A clock that has just jumped ahead makes everything look old.
            if moment - since >= _PAUSE.total_seconds():
                self._prune(db, moment)
            for row in self._open(db, None).values():
                before = dict(row)
                quiet = moment - max(row["last_at"], since) > FORGOTTEN_AFTER.total_seconds()
                if row["active"] and quiet and not row["cause"].startswith(_LASTING):
                    self._clear(db, row, moment, None, "not heard of for a day", patterns)
                    continue
                if escalate_after is not None and (graver := _escalated(row, escalate_after, moment)):
                    row |= {"severity": graver, "escalations": row["escalations"] + 1}
                    _note(db, row["id"], moment, "escalated", None, graver)
                    escalated.append(row["id"])
                self._tell(db, row, moment, patterns)
                away = moment - row["changed_at"]
                over = away >= (RETURNS_WITHIN if row["acknowledged"] else CLOSED_AFTER).total_seconds()
                if over and not row["active"] and not row["flapping"]:
                    row["open"] = False
                if row != before:
                    self._save(db, row)
        return escalated

    def _prune(self, db: sa.Connection, moment: float) -> None:
        """Deletes, once an hour, what is older than the retention: messages that were sent or given up, alarms that are
        closed, and history, also of alarms that are open: one that comes and goes for years has much of it. The newest
        alarm stays, so that no number is given twice."""
        if abs(moment - self._pruned_at) < _PRUNE_SECONDS:
            return
        self._pruned_at, oldest = moment, moment - self._retention
        ended = sa.or_(_OUTBOX.c.sent_at.is_not(None), _OUTBOX.c.next_at >= _NEVER)
        db.execute(_OUTBOX.delete().where(_OUTBOX.c.posted_at < oldest, ended))
        newest = sa.select(sa.func.max(_ALARMS.c.id)).scalar_subquery()
        old = sa.and_(_ALARMS.c.changed_at < oldest, _ALARMS.c.last_at < oldest)
        closed = sa.and_(_ALARMS.c.open.is_(False), old, _ALARMS.c.id < newest)
        of_closed = _HISTORY.c.alarm.in_(sa.select(_ALARMS.c.id).where(closed))
        db.execute(_HISTORY.delete().where(sa.or_(_HISTORY.c.at < oldest, of_closed)))
        db.execute(_ALARMS.delete().where(closed))

    def acknowledge(self, number: int, by: str, note: str = "", now: datetime | None = None) -> Alarm:
        """Somebody has seen it. That holds for as long as the cause lasts."""
        moment = _seconds(now)
        with self._changing() as db:
            row = self._of(db, number)
            is_first, row["acknowledged"] = not row["acknowledged"], True
            self._save(db, row)
            _note(db, number, moment, "acknowledged", by, note)
            if is_first and row["told"]:
                self._post(db, row, "acknowledged", moment)
        return self.alarm(number)

    def clear(self, number: int, by: str, note: str = "", now: datetime | None = None) -> Alarm:
        """By hand. Should it still be wrong, the next report makes it active again."""
        moment = _seconds(now)
        with self._changing() as db:
            row = self._of(db, number)
            if row["active"]:
                self._clear(db, row, moment, by, note, self._patterns(db, moment))
        return self.alarm(number)

    def assign(self, number: int, to: str, by: str, now: datetime | None = None) -> Alarm:
        """Raises AlertError where nobody is named."""
        if not to.strip():
            raise AlertError(f"alarm {number} is assigned to nobody: give a name")
        with self._changing() as db:
            self._save(db, self._of(db, number) | {"assignee": to})
            _note(db, number, _seconds(now), "assigned", by, to)
        return self.alarm(number)

    def silence(self, pattern: str, lasting: timedelta, by: str, note: str = "", now: datetime | None = None) -> int:
        """No messages for causes that match the pattern (* and ? as in file names) until it ends; of what is wrong
        then, one is sent. Returns its id. Raises AlertError for an empty pattern, and for a silence that has no end or
        ends at once."""
        if not pattern.strip():
            raise AlertError("a silence needs a pattern of causes, such as 'check/gold/*'; '*' is all of them")
        if lasting <= timedelta(0):
            raise AlertError(f"a silence of {lasting} has ended before it began")
        if lasting > LONGEST_SILENCE:
            raise AlertError(f"a silence of {lasting} is too long: it lasts {LONGEST_SILENCE.days} days at most")
        with self._changing() as db:
            until = _seconds(now) + lasting.total_seconds()
            done = db.execute(_SILENCES.insert().values(pattern=pattern, until=until, by=by, note=note))
            return int(done.inserted_primary_key[0])  # type: ignore[index]

    def unsilence(self, number: int) -> None:
        with self._changing() as db:
            if not db.execute(_SILENCES.delete().where(_SILENCES.c.id == number)).rowcount:
                raise AlertError(f"no silence {number}; `city alerts silences` lists them")

    def silences(self, now: datetime | None = None) -> list[dict[str, Any]]:
        with self._engine.connect() as db:
            return [dict(row) | {"until": _time(row["until"])} for row in self._silences(db, _seconds(now))]

    def alarm(self, number: int) -> Alarm:
        """Raises AlertError."""
        with self._engine.connect() as db:
            return _alarm(self._of(db, number), self._patterns(db, _seconds(None)))

    def alarms(self, closed: bool = False, now: datetime | None = None) -> list[Alarm]:
        """Open alarms (or all), the gravest and newest first."""
        with self._engine.connect() as db:
            query = sa.select(_ALARMS) if closed else sa.select(_ALARMS).where(_ALARMS.c.open.is_(True))
            rows, patterns = db.execute(query).mappings().all(), self._patterns(db, _seconds(now))
        known = [_alarm(dict(row), patterns) for row in rows]
        found = known if closed else [alarm for alarm in known if alarm.open]
        return sorted(found, key=lambda a: (not a.active, -SEVERITIES.index(a.severity), -a.last_at.timestamp()))

    def active_causes(self) -> list[str]:
        """The causes of all alarms that are active, without what is said of them."""
        with self._engine.connect() as db:
            query = sa.select(_ALARMS.c.cause).where(_ALARMS.c.open.is_(True), _ALARMS.c.active.is_(True))
            return list(db.execute(query.order_by(_ALARMS.c.cause)).scalars())

    def history(self, number: int) -> list[dict[str, Any]]:
        with self._engine.connect() as db:
            query = sa.select(_HISTORY).where(_HISTORY.c.alarm == number).order_by(_HISTORY.c.id)
            return [dict(row) | {"at": _time(row["at"])} for row in db.execute(query).mappings()]

    def lease(self, now: datetime | None = None) -> list[Letter]:
        """The messages that are to be sent, the oldest first, for a minute this caller's alone. Where one of a channel
        is due, so are the others that the channel did not take: should it be well again, the oldest is no longer held
        back by the wait of its many failures. What was refused while others were taken waits for its own time. Of an
        alarm on a channel only the oldest message that is not sent: what is told of it is told in order.
        """
        moment = _seconds(now)
        with self._changing() as db:
            waiting = db.execute(
                sa.select(_OUTBOX).where(_OUTBOX.c.sent_at.is_(None), _OUTBOX.c.next_at < _NEVER).order_by(_OUTBOX.c.id)
            ).mappings()
            first = dict[tuple[str, int], Any]()
            for row in waiting.all():
                first.setdefault((row["channel"], row["alarm"] or -row["id"]), row)
            free = [row for row in first.values() if row["leased_until"] <= moment]
            tried = {row["channel"] for row in free if row["next_at"] <= moment}
            found = [
                Letter(row["id"], row["channel"], json.loads(row["message"]), row["attempts"])
                for row in free
                if row["next_at"] <= moment or (row["channel"] in tried and not row["refused"])
            ]
            if found:
                leased = _OUTBOX.c.id.in_([letter.id for letter in found])
                db.execute(_OUTBOX.update().where(leased).values(leased_until=moment + _LEASE_SECONDS))
        return found

    def sent(
        self,
        letters: Sequence[Letter],
        error: str | None = None,
        again_at: datetime | None = None,
        now: datetime | None = None,
        refused: bool = False,
    ) -> None:
        """Writes down what became of an attempt: sent, or failed and made again at `again_at`, unless the message is
        a week old. `refused`: the channel takes others."""
        moment = _seconds(now)
        of = _OUTBOX.c.id.in_([letter.id for letter in letters])
        values: dict[str, Any] = {"attempts": _OUTBOX.c.attempts + 1, "error": error, "leased_until": 0.0}
        if error is None:
            values["sent_at"] = moment
        else:
            expired = _OUTBOX.c.posted_at < moment - _EXPIRY.total_seconds()
            values |= {"next_at": sa.case((expired, _NEVER), else_=_seconds(again_at)), "refused": refused}
        with self._changing() as db:
            db.execute(_OUTBOX.update().where(of).values(**values))

    def release(self, letters: Sequence[Letter], now: datetime | None = None) -> None:
        """Gives back messages that were leased and not tried: they are due."""
        of = _OUTBOX.c.id.in_([letter.id for letter in letters])
        values = {"next_at": _seconds(now), "leased_until": 0.0}
        with self._changing() as db:
            db.execute(_OUTBOX.update().where(of, _OUTBOX.c.sent_at.is_(None)).values(**values))

    def unsent(self, about_channels: bool = True) -> list[Unsent]:
        """Of each channel that has not taken all its messages, by name; without those of the alarms of channels
        themselves where `about_channels` is false."""
        waits, id_, channel = _OUTBOX.c.next_at < _NEVER, _OUTBOX.c.id, _OUTBOX.c.channel
        query = sa.select(
            channel,
            sa.func.count(sa.case((waits, 1))).label("waiting"),
            sa.func.count(sa.case((sa.not_(waits), 1))).label("given_up"),
            sa.func.min(sa.case((waits, _OUTBOX.c.posted_at))).label("since"),
            sa.func.max(sa.case((waits, _OUTBOX.c.attempts), else_=0)).label("attempts"),
            sa.func.min(sa.case((sa.and_(waits, _OUTBOX.c.error.is_not(None)), id_))).label("tried"),
        ).where(_OUTBOX.c.sent_at.is_(None))
        if not about_channels:
            about = sa.select(_ALARMS.c.id).where(_ALARMS.c.cause.startswith(CHANNEL_ALARMS, autoescape=True))
            query = query.where(sa.or_(_OUTBOX.c.alarm.is_(None), _OUTBOX.c.alarm.not_in(about)))
        with self._engine.connect() as db:
            rows = db.execute(query.group_by(channel).order_by(channel)).mappings().all()
            tried = sa.select(id_, _OUTBOX.c.error).where(id_.in_([row["tried"] for row in rows]))
            errors = dict(db.execute(tried).tuples().all())
        return [
            Unsent(
                row["channel"],
                row["waiting"],
                row["given_up"],
                None if row["since"] is None else _time(row["since"]),
                row["attempts"],
                errors.get(row["tried"]),
            )
            for row in rows
        ]

    def drop(self, channel: str, by: str, now: datetime | None = None) -> int:
        """Deletes the messages that a channel has not taken, which the history of their alarms tells. Returns how many.
        Raises AlertError where there is none."""
        unsent = sa.and_(_OUTBOX.c.channel == channel, _OUTBOX.c.sent_at.is_(None))
        with self._changing() as db:
            dropped = Counter(db.execute(sa.select(_OUTBOX.c.alarm).where(unsent)).scalars())
            if not dropped:
                raise AlertError(f"no message waits for the channel {channel!r}; `city alerts list` shows what waits")
            db.execute(_OUTBOX.delete().where(unsent))
            for alarm, count in dropped.items():
                if alarm is not None:
                    _note(db, alarm, _seconds(now), "dropped", by, f"{count} message(s) to {channel}, not sent")
        return dropped.total()

    def active_by_severity(self) -> dict[str, int]:
        """How many alarms are active, of each severity."""
        active = sa.select(_ALARMS.c.severity, sa.func.count()).where(
            _ALARMS.c.open.is_(True), _ALARMS.c.active.is_(True)
        )
        with self._engine.connect() as db:
            counted: dict[str, int] = dict(db.execute(active.group_by(_ALARMS.c.severity)).tuples().all())
        return {severity: counted.get(severity, 0) for severity in SEVERITIES}

    def remembered_below(self, prefix: str) -> dict[str, Any]:
        """All small values whose names begin so."""
        with self._engine.connect() as db:
            query = sa.select(_STATE.c.name, _STATE.c.value).where(_STATE.c.name.startswith(prefix, autoescape=True))
            return {name: json.loads(value) for name, value in db.execute(query.order_by(_STATE.c.name))}

    def remembered(self, name: str) -> Any:
        """A small value that was kept under a name; None where there is none."""
        with self._engine.connect() as db:
            return _remembered(db, name)

    def _raise(
        self, db: sa.Connection, row: dict[str, Any] | None, finding: Finding, moment: float, patterns: list[str]
    ) -> tuple[int, bool]:
        if row is None:
            row = _fresh(finding, moment)
            done = db.execute(_ALARMS.insert().values(**row))
            row["id"] = int(done.inserted_primary_key[0])  # type: ignore[index]
            _note(db, row["id"], moment, "raised", None, finding.title)
            self._tell(db, row, moment, patterns)
            self._save(db, row)
            return row["id"], True
        again = not row["active"]
        if again:  # nobody may have looked for hours
            self._settle(db, row, moment)
        row |= {**_said(finding), "count": row["count"] + 1, "last_at": moment, "active": True}
        if again:
            held = row["acknowledged"] and moment - row["changed_at"] < RETURNS_WITHIN.total_seconds()
            row |= {"acknowledged": held, "active_at": moment, "escalations": 0, **_changed(row, moment)}
            _note(db, row["id"], moment, "raised again", None, finding.title)
        severity = _graver(finding.severity, row["escalations"])
        if not again and severity != row["severity"]:
            _note(db, row["id"], moment, "severity", None, f"{row['severity']} to {severity}")
        row["severity"] = severity
        self._tell(db, row, moment, patterns)
        self._save(db, row)
        return int(row["id"]), again

    def _clear(
        self, db: sa.Connection, row: dict[str, Any], moment: float, by: str | None, note: str, patterns: list[str]
    ) -> None:
        self._settle(db, row, moment)
        row |= {"active": False, **_changed(row, moment)}
        _note(db, row["id"], moment, "cleared", by, note)
        self._tell(db, row, moment, patterns)
        self._save(db, row)

    def _tell(self, db: sa.Connection, row: dict[str, Any], moment: float, patterns: list[str]) -> None:
        """Puts into the outbox what people do not know yet of an alarm, and changes `row`, which is then saved."""
        self._settle(db, row, moment)
        flaps = row["active"] and row["changed_at"] == moment and _recent_changes(row, moment) >= FLAPS
        if flaps and not row["flapping"]:
            row["flapping"] = True
            _note(db, row["id"], moment, "flapping", None, "")
        if row["flapping"]:
            self._tell_flapping(db, row, moment, patterns)
        else:
            self._tell_difference(db, row, moment, patterns)

    def _tell_flapping(self, db: sa.Connection, row: dict[str, Any], moment: float, patterns: list[str]) -> None:
        """Of a cause that flaps only that it does, while it is active, and that it is worse than was told."""
        told = row["told"]
        if not row["active"] or _silenced(row["cause"], patterns):
            return
        if told is None or _rank(row["severity"]) > _rank(told.removeprefix(_FLAPPING)):
            row["told"] = _FLAPPING + row["severity"]
            self._post(db, row, "flapping" if told is None else "graver", moment)
        if told is None and row["changed_at"] != moment:
            row["changes"] = _with_change(row, moment)
        if told is None and row["acknowledged"]:
            self._post(db, row, "acknowledged", moment)

    def _settle(self, db: sa.Connection, row: dict[str, Any], moment: float) -> None:
        """Ends flapping where it is time. People know no more than that it flaps, so how it is now is a difference."""
        if not row["flapping"]:
            return
        is_steady = moment - json.loads(row["changes"])[-1] >= STEADY_AFTER.total_seconds()
        if is_steady and _recent_changes(row, moment) <= FLAPS - 2:
            _note(db, row["id"], moment, "steady", None, "active" if row["active"] else "cleared")
            row |= {"flapping": False, "changes": _with_change(row, moment)}

    def _tell_difference(self, db: sa.Connection, row: dict[str, Any], moment: float, patterns: list[str]) -> None:
        told = row["told"]
        is_new = told is None or told.startswith(_FLAPPING)
        if not row["active"] and told is not None:
            # Also in a silence: an end disturbs nobody, and whoever was told would wait for it.
            self._post(db, row, "cleared", moment)
            row |= {"told": None, "told_to": "[]"}
        elif row["active"] and (is_new or _rank(row["severity"]) > _rank(told)):
            if _silenced(row["cause"], patterns):
                return
            row["told"] = row["severity"]
            self._post(db, row, "raised" if is_new else "graver", moment)
            if told is None and row["acknowledged"]:
                self._post(db, row, "acknowledged", moment)

    def _post(self, db: sa.Connection, row: dict[str, Any], event: Event, moment: float) -> None:
        """What is wrong goes to each channel that is for such a severity, and to those that were told before, which
        are the ones to hear of the end. Whether a channel's settings are right shows when it is sent."""
        alarm = _told(row, event) | {"dedup_key": self._dedup_key(row["id"])}
        message = json.dumps({"group": row["group"], "event": event, "alarms": [alarm]}, default=str)
        told_to = {*json.loads(row["told_to"])}
        if event == "acknowledged":
            to = {address.name for address in self._to if address.follows and address.name in told_to}
        elif event == "cleared":
            to = told_to
        else:
            to = told_to | {address.name for address in self._to if address.wants(row["severity"])}
            row["told_to"] = json.dumps(sorted(to))
        for address in self._to:
            if address.name not in to or row["cause"] == CHANNEL_ALARMS + address.name:
                continue
            values = {"key": uuid.uuid4().hex, "channel": address.name, "alarm": row["id"], "message": message}
            db.execute(_OUTBOX.insert().values(**values, attempts=0, posted_at=moment, next_at=moment))

    def _dedup_key(self, alarm: int) -> str:
        """An incident is resolved by the key that opened it, so alarms that are older than the store id keep theirs."""
        return f"city-alarm-{alarm}" if alarm <= self._last_without_store_id else f"city-{self.id}-{alarm}"

    @contextmanager
    def _changing(self) -> Iterator[sa.Connection]:
        """A transaction that nobody else changes anything beside."""
        with self._engine.connect().execution_options(**{_WRITES: True}) as db, db.begin():
            if not self._sqlite:
                db.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield db

    def _open(self, db: sa.Connection, scope: str | None) -> dict[str, dict[str, Any]]:
        query = sa.select(_ALARMS).where(_ALARMS.c.open.is_(True))
        if scope is not None:
            query = query.where(_ALARMS.c.cause.startswith(scope, autoescape=True))
        return {row["cause"]: dict(row) for row in db.execute(query).mappings()}

    def _of(self, db: sa.Connection, number: int) -> dict[str, Any]:
        row = db.execute(sa.select(_ALARMS).where(_ALARMS.c.id == number)).mappings().first()
        if row is None:
            raise AlertError(f"no alarm {number}; `city alerts list` shows them")
        return dict(row)

    def _save(self, db: sa.Connection, row: Mapping[str, Any]) -> None:
        db.execute(_ALARMS.update().where(_ALARMS.c.id == row["id"]).values(**row))

    def _silences(self, db: sa.Connection, moment: float) -> list[Any]:
        query = sa.select(_SILENCES).where(_SILENCES.c.until > moment).order_by(_SILENCES.c.id)
        return list(db.execute(query).mappings().all())

    def _patterns(self, db: sa.Connection, moment: float) -> list[str]:
        return [silence["pattern"] for silence in self._silences(db, moment)]


def desk(config: Settings) -> Desk:
    """The desk that the settings name, which sends to the channels that they name."""
    if config.alerts_url is None:
        (config.home / "alerts").mkdir(parents=True, exist_ok=True)
    return Desk(config.alerts_store, addresses(config), timedelta(days=config.alert_retention_days))


def _begin_by_hand(engine: sa.Engine) -> None:
    """SQLite's driver begins a transaction at its first change, when another process may have come in between."""

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begun(db: sa.Connection) -> None:
        db.exec_driver_sql("BEGIN IMMEDIATE" if db.get_execution_options().get(_WRITES) else "BEGIN")


def _upgrade(db: sa.Connection, to: Sequence[Address]) -> None:
    """Adds the columns and indexes that a store of an earlier version lacks."""
    for table in (_ALARMS, _HISTORY, _OUTBOX):
        held = {column["name"] for column in sa.inspect(db).get_columns(table.name)}
        for column in table.c:
            if column.name not in held:
                declared = sa.schema.CreateColumn(column).compile(dialect=db.dialect)
                db.exec_driver_sql(f'ALTER TABLE "{table.name}" ADD COLUMN {declared}')
        for index in table.indexes:
            index.create(db, checkfirst=True)
        if table is _ALARMS and "told" not in held:  # what it was told of at once
            db.execute(_ALARMS.update().values(changed_at=_ALARMS.c.last_at))
            db.execute(_ALARMS.update().where(_ALARMS.c.active.is_(True)).values(told=_ALARMS.c.severity))
        if table is _ALARMS and "told_to" not in held:
            known = db.execute(sa.select(_ALARMS.c.id, _ALARMS.c.told).where(_ALARMS.c.told.is_not(None))).all()
            for number, told in known:
                # Of what flaps something graver may have been told before. To resolve an incident that is not there
                # does no harm, and one that is there must not stay open.
                severity = told.removeprefix(_FLAPPING)
                names = json.dumps(sorted(address.name for address in to if address.follows or address.wants(severity)))
                db.execute(_ALARMS.update().where(_ALARMS.c.id == number).values(told_to=names))


def _store_id(db: sa.Connection) -> str:
    """The id of the store, which is made the first time."""
    known = _remembered(db, _STORE)
    if known is None:
        _remember(db, _STORE, known := uuid.uuid4().hex)
        _remember(db, _NUMBERED, db.execute(sa.select(sa.func.max(_ALARMS.c.id))).scalar() or 0)
    return str(known)


def _last_without_store_id(db: sa.Connection) -> int:
    """The highest number of an alarm that is older than the store id; 0 where there is none."""
    return int(_remembered(db, _NUMBERED) or 0)


def _looked_since(db: sa.Connection, moment: float) -> float:
    """Since when there have been looks without a pause; writes down this one."""
    known: dict[str, float] = _remembered(db, _LOOKS) or {"since": moment, "last": moment}
    pauses = abs(moment - known["last"]) > _PAUSE.total_seconds()  # or the clock was set
    since = moment if pauses else min(known["since"], moment)
    _remember(db, _LOOKS, {"since": since, "last": moment})
    return since


def _remembered(db: sa.Connection, name: str) -> Any:
    text = db.execute(sa.select(_STATE.c.value).where(_STATE.c.name == name)).scalar()
    return None if text is None else json.loads(text)


def _remember(db: sa.Connection, name: str, value: Any) -> None:
    _store_text(db, name, _encoded(value))


def _encoded(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value, option=_JSON).decode()


def _store_text(db: sa.Connection, name: str, text: str | None) -> None:
    db.execute(_STATE.delete().where(_STATE.c.name == name))
    if text is not None:
        db.execute(_STATE.insert().values(name=name, value=text))


def _note(db: sa.Connection, alarm: int, moment: float, event: str, by: str | None, note: str) -> None:
    db.execute(_HISTORY.insert().values(alarm=alarm, at=moment, event=event, by=by, note=note))


def _fresh(finding: Finding, moment: float) -> dict[str, Any]:
    """The row of an alarm that a finding raises."""
    times = dict.fromkeys(("first_at", "last_at", "active_at", "changed_at"), moment)
    counts = {"count": 1, "escalations": 0, "changes": json.dumps([moment])}
    states = {"active": True, "acknowledged": False, "open": True, "flapping": False, "assignee": None}
    told = {"told": None, "told_to": "[]"}
    return {"cause": finding.cause, "severity": finding.severity, **_said(finding), **times, **counts, **states, **told}


def _changed(row: Mapping[str, Any], moment: float) -> dict[str, Any]:
    """What says of an alarm that it came or went at that moment."""
    return {"changed_at": moment, "changes": _with_change(row, moment)}


def _with_change(row: Mapping[str, Any], moment: float) -> str:
    """The times of an alarm's latest changes, and of that one. That flapping was told later than it began, or ended,
    is one too: it sends a message like them."""
    return json.dumps([*json.loads(row["changes"]), moment][-FLAPS:])


def _recent_changes(row: Mapping[str, Any], moment: float) -> int:
    since = moment - FLAPS_WITHIN.total_seconds()
    return sum(at > since for at in json.loads(row["changes"]))


def _said(finding: Finding) -> dict[str, Any]:
    """A finding's own columns."""
    return {
        "title": finding.title[:_TITLE],
        "group": finding.group[:_GROUP],
        "detail": json.dumps(finding.detail, default=str) if finding.detail else None,
        "labels": json.dumps(dict(finding.labels)) if finding.labels else None,
    }


def _is_repeat(row: Mapping[str, Any], finding: Finding) -> bool:
    """Whether a finding says nothing new of an alarm."""
    return bool(row["active"]) and _graver(finding.severity, row["escalations"]) == row["severity"]


def _escalated(row: Mapping[str, Any], after: timedelta, moment: float) -> Severity | None:
    """The next severity of an alarm that nobody has acknowledged for too long."""
    due = row["active_at"] + (row["escalations"] + 1) * after.total_seconds() <= moment
    if not due or row["acknowledged"] or not row["active"] or row["flapping"]:
        return None
    step = _rank(row["severity"]) + 1
    return SEVERITIES[step] if step < len(SEVERITIES) else None


def _graver(severity: Severity, steps: int) -> Severity:
    return SEVERITIES[min(_rank(severity) + steps, len(SEVERITIES) - 1)]


def _rank(severity: str) -> int:
    return [*SEVERITIES].index(severity)  # type: ignore[arg-type]


def matches(cause: str, pattern: str) -> bool:
    """Whether a silence of that pattern is one of that cause."""
    return fnmatchcase(cause, pattern)


def _silenced(cause: str, patterns: Iterable[str]) -> bool:
    return any(matches(cause, pattern) for pattern in patterns)


def _alarm(row: Mapping[str, Any], patterns: Iterable[str]) -> Alarm:
    same = ("id", "cause", "severity", "title", "group", "count", "assignee", "escalations")
    return Alarm(
        **{name: row[name] for name in same},
        active=bool(row["active"]),
        acknowledged=bool(row["acknowledged"]),
        first_at=_time(row["first_at"]),
        last_at=_time(row["last_at"]),
        flapping=bool(row["flapping"]),
        silenced=_silenced(row["cause"], patterns),
        labels=json.loads(row["labels"]) if row["labels"] else {},
        detail=json.loads(row["detail"]) if row["detail"] else None,
    )


def _told(row: Mapping[str, Any], event: Event) -> dict[str, Any]:
    """An alarm as messages have it."""
    alarm = _alarm(row, ())
    return {
        "id": alarm.id,
        "cause": alarm.cause,
        "severity": alarm.severity,
        "title": alarm.title,
        "event": event,
        "state": alarm.state,
        "count": alarm.count,
        "first_at": alarm.first_at.isoformat(),
        "last_at": alarm.last_at.isoformat(),
        "assignee": alarm.assignee,
        "labels": dict(alarm.labels),
        "detail": alarm.detail,
    }


def _seconds(moment: datetime | None) -> float:
    return (moment or datetime.now(UTC)).timestamp()


def _time(seconds: float) -> datetime:
    """A silence of an earlier version may end after the last year that there is."""
    return datetime.fromtimestamp(min(seconds, _LAST_SECONDS), UTC)
