"""The alert store: alarms, their history, silences and the outbox, in SQLite or in PostgreSQL (CITY_ALERTS_URL)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from city.alerts.channels import Address, addresses
from city.alerts.model import Alarm, AlertError, Finding
from city.alerts.notifier import Notifier
from city.alerts.outbox import Outbox
from city.alerts.outcome_metrics import OutcomeMetrics
from city.alerts.queries import AlertQueries, row_of, silence_patterns, to_alarm_row
from city.alerts.rows import (
    AlarmRow,
    changes_with,
    escalated_severity,
    finding_columns,
    is_repeat,
    new_row,
    raised_by_steps,
)
from city.alerts.schema import (
    ALARMS,
    HISTORY,
    NEVER,
    OUTBOX,
    SILENCES,
    Database,
    add_history,
    read_state,
    state_text,
    to_seconds,
    write_state,
    write_state_text,
)
from city.settings import Settings

RETURNS_WITHIN = timedelta(minutes=10)
"""A cause that returns so soon counts as never gone: its acknowledgement remains."""
FORGOTTEN_AFTER = timedelta(days=1)
"""An active alarm is cleared after so long without a failing or unknown finding, while there were checks: then nothing
checks its cause any more."""
CLOSED_AFTER = timedelta(days=1)
"""A cleared alarm that nobody has acknowledged is closed after so long."""
LONGEST_SILENCE = timedelta(days=366)
OVERVIEW = "checks"
"""The state of all asset checks: `passed` (names), and `failed` (by name)."""
_PAUSE = timedelta(minutes=10)  # without a tick: from then on time is counted anew
_LASTING = "run/"
"""These causes are reported when they happen, and not again: only another such report ends them."""
_PRUNE_SECONDS = 3600.0
_TICKS = "looks"


@dataclass(frozen=True)
class Changes:
    """The ids of alarms that `sync_findings` has raised (or raised again), and cleared."""

    raised: list[int]
    cleared: list[int]


class AlertStore(AlertQueries):
    """Reads and changes alarms. Every change is one transaction that includes its consequences for people: the alarm,
    its history and the outbox.

    `to` are the channels that messages go to. Closed alarms and sent messages are kept for `retention`. Safe to use
    from several threads and processes: a change locks the store.
    """

    def __init__(self, url: str, to: Sequence[Address] = (), retention: timedelta = timedelta(days=30)) -> None:
        self._retention, self._pruned_at = retention.total_seconds(), float("-inf")
        super().__init__(Database(url, to))
        self._notifier = Notifier(self._database, to)
        self.outbox = Outbox(self._database)
        self.outcome_metrics = OutcomeMetrics(self._database)
        self.id = self._database.id

    def sync_findings(
        self,
        findings: Iterable[Finding],
        scope: str | None = None,
        now: datetime | None = None,
        remember: Mapping[str, object] | None = None,
    ) -> Changes:
        """Raises, repeats and clears alarms by the findings of checks.

        With a `scope` the findings are complete for causes that begin with it: its other alarms are of things that no
        longer exist, and are cleared. `remember` (name → value; None deletes the name) is stored by the same
        transaction (see `remembered`), so a reader's position is never ahead of its alarms, or behind.

        Raises AlertError for a cause outside the scope.
        """
        moment, raised, cleared = to_seconds(now), list[int](), list[int]()
        latest = {finding.cause: finding for finding in findings}
        if scope is not None and (foreign := [cause for cause in latest if not cause.startswith(scope)]):
            raise AlertError(f"cause {foreign[0]!r} is not of the scope {scope!r}")
        repeated: list[dict[str, object]] = []
        unknown: list[int] = []
        # Before the transaction: the state of a large city is megabytes, and everybody waits for the store.
        encoded = {name: state_text(value) for name, value in (remember or {}).items()}
        with self._database.changing() as db:
            patterns = silence_patterns(db, moment)
            rows = self._open_rows(db, scope)
            for cause, finding in latest.items():
                row = rows.get(cause)
                if finding.state == "failing" and row is not None and is_repeat(row, finding):
                    repeated.append({"_id": row["id"], "last_at": moment, **finding_columns(finding)})
                elif finding.state == "failing":
                    number, became_active = self._raise_alarm(db, row, finding, moment, patterns)
                    if became_active:
                        raised.append(number)
                elif finding.state == "unknown" and row is not None:
                    unknown.append(row["id"])
                elif finding.state == "passing" and row is not None and row["active"]:
                    self._clear_alarm(db, row, moment, None, "no longer so", patterns)
                    cleared.append(row["id"])
            for cause, row in rows.items():
                if scope is not None and cause not in latest and row["active"]:
                    self._clear_alarm(db, row, moment, None, "no longer monitored", patterns)
                    cleared.append(row["id"])
            if repeated:
                update = ALARMS.update().where(ALARMS.c.id == sa.bindparam("_id"))
                db.execute(update.values(count=ALARMS.c.count + 1), repeated)
            if unknown:
                db.execute(ALARMS.update().where(ALARMS.c.id.in_(unknown)).values(last_at=moment))
            for name, text in encoded.items():
                write_state_text(db, name, text)
        return Changes(raised, cleared)

    def tick(self, escalate_after: timedelta | None = None, now: datetime | None = None) -> list[int]:
        """Applies the passing of time: silences end, the severity of alarms that nobody acknowledges rises (again for
        each further `escalate_after`, up to critical), flapping ends, acknowledged and old alarms close.

        Returns the ids of alarms whose severity rose.
        """
        moment, risen = to_seconds(now), list[int]()
        with self._database.changing() as db:
            patterns = silence_patterns(db, moment)
            since = _ticks_since(db, moment)
            # A clock that has just jumped ahead makes everything look old.
            if moment - since >= _PAUSE.total_seconds():
                self._prune(db, moment)
            for row in self._open_rows(db, None).values():
                before = dict(row)
                quiet = moment - max(row["last_at"], since) > FORGOTTEN_AFTER.total_seconds()
                if row["active"] and quiet and not row["cause"].startswith(_LASTING):
                    self._clear_alarm(db, row, moment, None, "not heard of for a day", patterns)
                    continue
                if escalate_after is not None and (severity := escalated_severity(row, escalate_after, moment)):
                    row |= {"severity": severity, "escalations": row["escalations"] + 1}
                    add_history(db, row["id"], moment, "escalated", None, severity)
                    risen.append(row["id"])
                self._notifier.notify(db, row, moment, patterns)
                seconds_since_change = moment - row["changed_at"]
                over = seconds_since_change >= (RETURNS_WITHIN if row["acknowledged"] else CLOSED_AFTER).total_seconds()
                if over and not row["active"] and not row["flapping"]:
                    row["open"] = False
                if row != before:
                    _save_row(db, row)
        return risen

    def acknowledge(self, number: int, by: str, note: str = "", now: datetime | None = None) -> Alarm:
        """Records that somebody has seen the alarm, for as long as its cause lasts. Raises AlertError."""
        moment = to_seconds(now)
        with self._database.changing() as db:
            row = row_of(db, number)
            is_first, row["acknowledged"] = not row["acknowledged"], True
            _save_row(db, row)
            add_history(db, number, moment, "acknowledged", by, note)
            if is_first and row["told"]:
                self._notifier.post(db, row, "acknowledged", moment)
        return self.alarm(number)

    def clear(self, number: int, by: str, note: str = "", now: datetime | None = None) -> Alarm:
        """Clears the alarm by hand. The next failing finding makes it active again. Raises AlertError."""
        moment = to_seconds(now)
        with self._database.changing() as db:
            row = row_of(db, number)
            if row["active"]:
                self._clear_alarm(db, row, moment, by, note, silence_patterns(db, moment))
        return self.alarm(number)

    def assign(self, number: int, to: str, by: str, now: datetime | None = None) -> Alarm:
        """Assigns the alarm to a person. Raises AlertError for an empty name."""
        if not to.strip():
            raise AlertError(f"alarm {number} needs the name of a person")
        with self._database.changing() as db:
            _save_row(db, row_of(db, number) | {"assignee": to})
            add_history(db, number, to_seconds(now), "assigned", by, to)
        return self.alarm(number)

    def silence(self, pattern: str, lasting: timedelta, by: str, note: str = "", now: datetime | None = None) -> int:
        """Suppresses messages about causes that match the pattern (* and ? as in file names) until it ends; then one
        message is sent for each that still lasts.

        Returns its id. Raises AlertError for an empty pattern, and for a silence that is too long or ends at once.
        """
        if not pattern.strip():
            raise AlertError("a silence needs a pattern of causes, such as 'check/gold/*'; '*' is all of them")
        if lasting <= timedelta(0):
            raise AlertError(f"a silence of {lasting} has ended before it began")
        if lasting > LONGEST_SILENCE:
            raise AlertError(f"a silence of {lasting} is too long: it lasts {LONGEST_SILENCE.days} days at most")
        with self._database.changing() as db:
            until = to_seconds(now) + lasting.total_seconds()
            result = db.execute(SILENCES.insert().values(pattern=pattern, until=until, by=by, note=note))
            return int(result.inserted_primary_key[0])  # type: ignore[index]

    def unsilence(self, number: int) -> None:
        """Ends a silence. Raises AlertError where there is none with that number."""
        with self._database.changing() as db:
            if not db.execute(SILENCES.delete().where(SILENCES.c.id == number)).rowcount:
                raise AlertError(f"no silence {number}; `city alerts silences` lists them")

    def _raise_alarm(
        self, db: sa.Connection, row: AlarmRow | None, finding: Finding, moment: float, patterns: list[str]
    ) -> tuple[int, bool]:
        """Raises or repeats an alarm. Returns its id, and whether it became active."""
        if row is None:
            first = new_row(finding, moment)
            result = db.execute(ALARMS.insert().values(**first))
            number = int(result.inserted_primary_key[0])  # type: ignore[index]
            added: AlarmRow = {**first, "id": number}
            add_history(db, number, moment, "raised", None, finding.title)
            self._notifier.notify(db, added, moment, patterns)
            _save_row(db, added)
            return number, True
        again = not row["active"]
        if again:  # the last tick may be hours ago
            self._notifier.settle(db, row, moment)
        row = {**row, **finding_columns(finding), "count": row["count"] + 1, "last_at": moment, "active": True}
        if again:
            stays = row["acknowledged"] and moment - row["changed_at"] < RETURNS_WITHIN.total_seconds()
            row |= {"acknowledged": stays, "active_at": moment, "escalations": 0}
            row |= {"changed_at": moment, "changes": changes_with(row, moment)}
            add_history(db, row["id"], moment, "raised again", None, finding.title)
        severity = raised_by_steps(finding.severity, row["escalations"])
        if not again and severity != row["severity"]:
            add_history(db, row["id"], moment, "severity", None, f"{row['severity']} to {severity}")
        row["severity"] = severity
        self._notifier.notify(db, row, moment, patterns)
        _save_row(db, row)
        return int(row["id"]), again

    def _clear_alarm(
        self, db: sa.Connection, row: AlarmRow, moment: float, by: str | None, note: str, patterns: list[str]
    ) -> None:
        self._notifier.settle(db, row, moment)
        row |= {"active": False, "changed_at": moment, "changes": changes_with(row, moment)}
        add_history(db, row["id"], moment, "cleared", by, note)
        self._notifier.notify(db, row, moment, patterns)
        _save_row(db, row)

    def _prune(self, db: sa.Connection, moment: float) -> None:
        """Deletes, once an hour, rows that are older than the retention: messages that were sent or given up, closed
        alarms, and history. The history of open alarms is deleted too, because an alarm that comes and goes for years
        has much of it. The newest alarm stays, so that no number is used twice."""
        if abs(moment - self._pruned_at) < _PRUNE_SECONDS:
            return
        self._pruned_at, oldest = moment, moment - self._retention
        ended = sa.or_(OUTBOX.c.sent_at.is_not(None), OUTBOX.c.next_at >= NEVER)
        db.execute(OUTBOX.delete().where(OUTBOX.c.posted_at < oldest, ended))
        newest = sa.select(sa.func.max(ALARMS.c.id)).scalar_subquery()
        old = sa.and_(ALARMS.c.changed_at < oldest, ALARMS.c.last_at < oldest)
        closed = sa.and_(ALARMS.c.open.is_(False), old, ALARMS.c.id < newest)
        of_closed = HISTORY.c.alarm.in_(sa.select(ALARMS.c.id).where(closed))
        db.execute(HISTORY.delete().where(sa.or_(HISTORY.c.at < oldest, of_closed)))
        db.execute(ALARMS.delete().where(closed))

    def _open_rows(self, db: sa.Connection, scope: str | None) -> dict[str, AlarmRow]:
        query = sa.select(ALARMS).where(ALARMS.c.open.is_(True))
        if scope is not None:
            query = query.where(ALARMS.c.cause.startswith(scope, autoescape=True))
        return {row["cause"]: to_alarm_row(row) for row in db.execute(query).mappings()}


def alert_store(config: Settings) -> AlertStore:
    """The store that the settings name, with the channels that they name."""
    if config.alerts_url is None:
        (config.home / "alerts").mkdir(parents=True, exist_ok=True)
    return AlertStore(config.alerts_store, addresses(config), timedelta(days=config.alert_retention_days))


def _save_row(db: sa.Connection, row: AlarmRow) -> None:
    db.execute(ALARMS.update().where(ALARMS.c.id == row["id"]).values(**row))


def _ticks_since(db: sa.Connection, moment: float) -> float:
    """The time since when ticks have come without a pause. Records this tick."""
    ticks: dict[str, float] = read_state(db, _TICKS) or {"since": moment, "last": moment}
    pauses = abs(moment - ticks["last"]) > _PAUSE.total_seconds()  # or the clock was set
    since = moment if pauses else min(ticks["since"], moment)
    write_state(db, _TICKS, {"since": since, "last": moment})
    return since
