"""Writes messages about alarms: the difference between an alarm's state and what people were last notified of.

An alarm's row has the severity that people were last notified of (column `told`). Each change, in its own transaction,
compares that with the alarm's state and writes the difference into the outbox. So nothing that happens in between (a
silence, a wrong setting, a kill) loses a message: the difference still exists at the next change or tick.
"""

import json
import uuid
from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from city.alerts.channels import Address
from city.alerts.model import Event
from city.alerts.outbox import CHANNEL_ALARMS
from city.alerts.rows import FLAPS, AlarmRow, changes_with, is_silenced, rank, recent_changes, to_payload
from city.alerts.schema import FLAPPING, OUTBOX, Database, add_history

STEADY_AFTER = timedelta(minutes=30)
"""Flapping ends after so long without a change, and with at most `FLAPS - 2` changes in `FLAPS_WITHIN`. Then the
message about the new state, and those that may follow before the cause flaps again, are at most five in any hour."""


class Notifier:
    """Writes messages for the channels `to` into the outbox. Its methods change `row`, which the caller saves."""

    def __init__(self, database: Database, to: Sequence[Address]) -> None:
        self._database, self._to = database, tuple(to)

    def notify(self, db: sa.Connection, row: AlarmRow, moment: float, patterns: list[str]) -> None:
        """Writes into the outbox what people do not know yet of an alarm. `patterns` are those of the silences."""
        self.settle(db, row, moment)
        flaps = row["active"] and row["changed_at"] == moment and recent_changes(row, moment) >= FLAPS
        if flaps and not row["flapping"]:
            row["flapping"] = True
            add_history(db, row["id"], moment, "flapping", None, "")
        if row["flapping"]:
            self._notify_flapping(db, row, moment, patterns)
        else:
            self._notify_difference(db, row, moment, patterns)

    def settle(self, db: sa.Connection, row: AlarmRow, moment: float) -> None:
        """Ends flapping where it is time. People only know that the alarm flaps, so its state is then a difference."""
        if not row["flapping"]:
            return
        is_steady = moment - json.loads(row["changes"])[-1] >= STEADY_AFTER.total_seconds()
        if is_steady and recent_changes(row, moment) <= FLAPS - 2:
            add_history(db, row["id"], moment, "steady", None, "active" if row["active"] else "cleared")
            row |= {"flapping": False, "changes": changes_with(row, moment)}

    def post(self, db: sa.Connection, row: AlarmRow, event: Event, moment: float) -> None:
        """Writes a message for each channel that gets messages of the severity, and for each channel that had messages
        about the alarm before, because it must get the end too. Wrong settings of a channel show only when the message
        is sent."""
        alarm = to_payload(row, event) | {"dedup_key": self._database.dedup_key(row["id"])}
        message = json.dumps({"group": row["group"], "event": event, "alarms": [alarm]}, default=str)
        notified = {*json.loads(row["told_to"])}
        if event == "acknowledged":
            names = {address.name for address in self._to if address.follows and address.name in notified}
        elif event == "cleared":
            names = notified
        else:
            names = notified | {address.name for address in self._to if address.wants(row["severity"])}
            row["told_to"] = json.dumps(sorted(names))
        for address in self._to:
            if address.name not in names or row["cause"] == CHANNEL_ALARMS + address.name:
                continue
            values = {"key": uuid.uuid4().hex, "channel": address.name, "alarm": row["id"], "message": message}
            db.execute(OUTBOX.insert().values(**values, attempts=0, posted_at=moment, next_at=moment))

    def _notify_flapping(self, db: sa.Connection, row: AlarmRow, moment: float, patterns: list[str]) -> None:
        """Writes, for a flapping cause, only that it flaps while it is active, and that its severity rose."""
        notified_severity = row["told"]
        if not row["active"] or is_silenced(row["cause"], patterns):
            return
        if notified_severity is None or rank(row["severity"]) > rank(notified_severity.removeprefix(FLAPPING)):
            row["told"] = FLAPPING + row["severity"]
            self.post(db, row, "flapping" if notified_severity is None else "graver", moment)
        if notified_severity is None and row["changed_at"] != moment:
            row["changes"] = changes_with(row, moment)
        if notified_severity is None and row["acknowledged"]:
            self.post(db, row, "acknowledged", moment)

    def _notify_difference(self, db: sa.Connection, row: AlarmRow, moment: float, patterns: list[str]) -> None:
        notified_severity = row["told"]
        is_new = notified_severity is None or notified_severity.startswith(FLAPPING)
        if not row["active"] and notified_severity is not None:
            # Also in a silence: an end disturbs nobody, and people who know of the alarm would wait for it.
            self.post(db, row, "cleared", moment)
            row |= {"told": None, "told_to": "[]"}
        elif row["active"] and (notified_severity is None or is_new or rank(row["severity"]) > rank(notified_severity)):
            if is_silenced(row["cause"], patterns):
                return
            row["told"] = row["severity"]
            self.post(db, row, "raised" if is_new else "graver", moment)
            if notified_severity is None and row["acknowledged"]:
                self.post(db, row, "acknowledged", moment)
