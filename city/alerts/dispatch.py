"""What is sent, when, and again: one message a group and channel, each alarm's event once, retried until taken."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from city.alerts.channels import channels, wanted
from city.alerts.desk import Desk
from city.alerts.model import Alarm
from city.settings import Settings

log = logging.getLogger(__name__)

_FIRST_RETRY, _LONGEST_RETRY = timedelta(seconds=30), timedelta(hours=1)
_ATTEMPTS = 12  # some six hours


def announce(desk: Desk, config: Settings, event: str, numbers: Sequence[int], now: datetime | None = None) -> None:
    """Puts messages on the alarms in the outbox, grouped; none for what is silenced."""
    groups: dict[str, list[Alarm]] = {}
    for number in numbers:
        alarm = desk.alarm(number)
        if not alarm.silenced:
            groups.setdefault(alarm.group, []).append(alarm)
    for name, (least, _) in channels(config).items():
        for group, members in groups.items():
            told = [alarm for alarm in members if wanted(least, alarm.severity)]
            if told:
                # An alarm that comes back, or goes up, is news; the same news is not told twice.
                key = ",".join(f"{a.id}:{event}:{a.severity}:{_times(desk, a, event)}" for a in told)
                desk.post(f"{name}|{key}"[:300], name, _message(group, event, told), now)


def deliver(desk: Desk, config: Settings, now: datetime | None = None) -> tuple[int, int]:
    """Sends what is due; what fails is tried again, ever more seldom. How many were sent, and how many failed."""
    known, moment = channels(config), now or datetime.now(UTC)
    sent = failed = 0
    for letter in desk.due(moment):
        try:
            if letter.channel not in known:
                raise ConnectionError(f"channel {letter.channel!r} is no longer in the settings")
            known[letter.channel][1](letter.message)
        except Exception as error:  # whatever a server that is away, or a setting that is wrong, makes its client raise
            wait = min(_FIRST_RETRY * 2**letter.attempts, _LONGEST_RETRY)
            again = moment + wait if letter.attempts + 1 < _ATTEMPTS else None
            reason = f"{letter.channel}: {error}"[:500]
            log.warning("an alert could not be sent by %s%s", reason, f"; again in {wait}" if again else "; given up")
            desk.sent(letter, reason, again, moment)
            failed += 1
        else:
            desk.sent(letter, None, None, moment)
            sent += 1
    return sent, failed


def _times(desk: Desk, alarm: Alarm, event: str) -> int:
    return sum(entry["event"].startswith(event) for entry in desk.history(alarm.id))


def _message(group: str, event: str, alarms: list[Alarm]) -> dict[str, object]:
    return {
        "group": group,
        "event": event,
        "alarms": [
            {
                "id": a.id,
                "cause": a.cause,
                "severity": a.severity,
                "title": a.title,
                "event": event,
                "state": a.state,
                "count": a.count,
                "first_at": a.first_at.isoformat(),
                "last_at": a.last_at.isoformat(),
                "assignee": a.assignee,
                "detail": a.detail,
            }
            for a in alarms
        ],
    }
