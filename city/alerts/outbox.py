"""The outbox: messages that wait to be sent, and the result of each attempt."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from city.alerts.channels import Message
from city.alerts.model import AlertError
from city.alerts.schema import ALARMS, NEVER, OUTBOX, Database, add_history, to_seconds, to_time

CHANNEL_ALARMS = "system/alert_channels/"
"""Precedes the name of a channel in the cause of its alarm, which goes to the other channels."""
_LEASE_SECONDS = 60.0
_EXPIRY = timedelta(days=7)
"""A message that its channel has not accepted for so long is given up."""


@dataclass(frozen=True)
class OutboxMessage:
    """A message about one alarm that waits for a channel, leased to the caller."""

    id: int
    channel: str
    message: Message
    attempts: int
    """How many deliveries have failed."""


@dataclass(frozen=True)
class UnsentMessages:
    """The messages that a channel has not accepted."""

    name: str
    waiting: int
    """How many messages are tried again."""
    given_up: int
    """How many messages are not tried again, because they are a week old."""
    since: datetime | None
    """Since when the oldest waiting message waits; None where none waits."""
    attempts: int
    """The number of attempts of the waiting message that was tried most often."""
    error: str | None
    """The error of the oldest waiting message that was tried."""


class Outbox:
    """Leases messages to senders, and records the attempts. The messages are written by the transaction that changes
    their alarm (`city.alerts.notifier`). Thread-safe, and safe for several processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def lease(self, now: datetime | None = None) -> list[OutboxMessage]:
        """The messages that are due, the oldest first, reserved for this caller for a minute.

        Where one message of a channel is due, the other messages that failed on the channel are due too. So when the
        channel works again, the oldest message does not wait for the end of its own long retry wait. A message that was
        refused while others were accepted waits for its own time. Of the messages about one alarm on a channel only the
        oldest unsent one is leased, so that they arrive in order.
        """
        moment = to_seconds(now)
        with self._database.changing() as db:
            waiting = db.execute(
                sa.select(OUTBOX).where(OUTBOX.c.sent_at.is_(None), OUTBOX.c.next_at < NEVER).order_by(OUTBOX.c.id)
            ).mappings()
            first = dict[tuple[str, int], sa.RowMapping]()
            for row in waiting.all():
                first.setdefault((row["channel"], row["alarm"] or -row["id"]), row)
            free = [row for row in first.values() if row["leased_until"] <= moment]
            tried = {row["channel"] for row in free if row["next_at"] <= moment}
            due = [
                OutboxMessage(row["id"], row["channel"], json.loads(row["message"]), row["attempts"])
                for row in free
                if row["next_at"] <= moment or (row["channel"] in tried and not row["refused"])
            ]
            if due:
                db.execute(OUTBOX.update().where(_among(due)).values(leased_until=moment + _LEASE_SECONDS))
        return due

    def record_attempt(
        self,
        messages: Sequence[OutboxMessage],
        error: str | None = None,
        again_at: datetime | None = None,
        now: datetime | None = None,
        refused: bool = False,
    ) -> None:
        """Records that messages were sent, or failed with an `error` and are tried again at `again_at`, unless they are
        a week old. `refused`: the channel accepts other messages."""
        moment = to_seconds(now)
        values: dict[str, object] = {"attempts": OUTBOX.c.attempts + 1, "error": error, "leased_until": 0.0}
        if error is None:
            values["sent_at"] = moment
        else:
            expired = OUTBOX.c.posted_at < moment - _EXPIRY.total_seconds()
            values |= {"next_at": sa.case((expired, NEVER), else_=to_seconds(again_at)), "refused": refused}
        with self._database.changing() as db:
            db.execute(OUTBOX.update().where(_among(messages)).values(**values))

    def release(self, messages: Sequence[OutboxMessage], now: datetime | None = None) -> None:
        """Gives back messages that were leased and not tried: they are due."""
        values = {"next_at": to_seconds(now), "leased_until": 0.0}
        with self._database.changing() as db:
            db.execute(OUTBOX.update().where(_among(messages), OUTBOX.c.sent_at.is_(None)).values(**values))

    def unsent(self, about_channels: bool = True) -> list[UnsentMessages]:
        """One entry per channel that has not accepted all its messages, by name. With `about_channels` false it leaves
        out the alarms about channels themselves."""
        waits, id_, channel = OUTBOX.c.next_at < NEVER, OUTBOX.c.id, OUTBOX.c.channel
        query = sa.select(
            channel,
            sa.func.count(sa.case((waits, 1))).label("waiting"),
            sa.func.count(sa.case((sa.not_(waits), 1))).label("given_up"),
            sa.func.min(sa.case((waits, OUTBOX.c.posted_at))).label("since"),
            sa.func.max(sa.case((waits, OUTBOX.c.attempts), else_=0)).label("attempts"),
            sa.func.min(sa.case((sa.and_(waits, OUTBOX.c.error.is_not(None)), id_))).label("tried"),
        ).where(OUTBOX.c.sent_at.is_(None))
        if not about_channels:
            about = sa.select(ALARMS.c.id).where(ALARMS.c.cause.startswith(CHANNEL_ALARMS, autoescape=True))
            query = query.where(sa.or_(OUTBOX.c.alarm.is_(None), OUTBOX.c.alarm.not_in(about)))
        with self._database.engine.connect() as db:
            rows = db.execute(query.group_by(channel).order_by(channel)).mappings().all()
            tried = sa.select(id_, OUTBOX.c.error).where(id_.in_([row["tried"] for row in rows]))
            errors = dict(db.execute(tried).tuples().all())
        return [
            UnsentMessages(
                row["channel"],
                row["waiting"],
                row["given_up"],
                None if row["since"] is None else to_time(row["since"]),
                row["attempts"],
                errors.get(row["tried"]),
            )
            for row in rows
        ]

    def drop(self, channel: str, by: str, now: datetime | None = None) -> int:
        """Deletes the messages that a channel has not accepted, and records this in the history of their alarms.

        Returns how many. Raises AlertError where there is none.
        """
        unsent = sa.and_(OUTBOX.c.channel == channel, OUTBOX.c.sent_at.is_(None))
        with self._database.changing() as db:
            dropped = Counter(db.execute(sa.select(OUTBOX.c.alarm).where(unsent)).scalars())
            if not dropped:
                raise AlertError(f"no message waits for the channel {channel!r}; `city alerts list` shows what waits")
            db.execute(OUTBOX.delete().where(unsent))
            for alarm, count in dropped.items():
                if alarm is not None:
                    note = f"{count} message(s) to {channel}, not sent"
                    add_history(db, alarm, to_seconds(now), "dropped", by, note)
        return dropped.total()


def _among(messages: Sequence[OutboxMessage]) -> sa.ColumnElement[bool]:
    return OUTBOX.c.id.in_([message.id for message in messages])
