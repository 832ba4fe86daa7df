"""What is in the outbox is sent: alarms of a group in one message, in their order, again and again until taken."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from city.alerts.channels import Refused, is_one_by_one, sender
from city.alerts.desk import Desk, Letter
from city.alerts.model import AlertError
from city.settings import Settings

log = logging.getLogger(__name__)

_FIRST_RETRY, _LONGEST_RETRY = timedelta(seconds=30), timedelta(hours=1)
_SETTINGS_RETRY = timedelta(minutes=1)
_TOGETHER = 50  # alarms in one message
_SECONDS = 25.0
"""So long a round sends on a channel. With a last message that takes its time it ends before the lease does."""


@dataclass(frozen=True)
class Delivered:
    """How many messages were sent, and how many attempts failed."""

    sent: int = 0
    failed: int = 0


def deliver(desk: Desk, config: Settings, now: datetime | None = None) -> Delivered:
    """Sends what is due, on all channels side by side: one that is slow holds back no other. What fails is tried again,
    ever more seldom. A message may be sent twice where the process is killed before it has written down that it was.
    """
    moment, by_channel = now or datetime.now(UTC), dict[str, list[Letter]]()
    for letter in desk.lease(moment):
        by_channel.setdefault(letter.channel, []).append(letter)
    if not by_channel:
        return Delivered()
    with ThreadPoolExecutor(len(by_channel), thread_name_prefix="deliver") as pool:
        done = list(pool.map(lambda of: _on_channel(desk, config, of, by_channel[of], moment), by_channel))
    return Delivered(sum(one.sent for one in done), sum(one.failed for one in done))


def _on_channel(desk: Desk, config: Settings, channel: str, letters: list[Letter], moment: datetime) -> Delivered:
    try:
        send = sender(config, channel)
    except AlertError as error:
        _failed(desk, letters, str(error), _SETTINGS_RETRY, moment)
        return Delivered(failed=1)
    sent = failed = 0
    refused, takes_others = list[tuple[list[Letter], str]](), False
    waiting, began = deque(_together(channel, letters)), time.monotonic()
    while waiting:
        if time.monotonic() - began > _SECONDS:
            # Soon somebody else may take them: what is left waits for the next round, and what was refused for longer,
            # so that it does not use up that round too.
            desk.release([letter for group in waiting for letter in group], moment)
            takes_others = True
            break
        group = waiting.popleft()
        try:
            alarms = [alarm for letter in group for alarm in letter.message["alarms"]]
            send({**group[0].message, "alarms": alarms})
        except Exception as error:  # whatever a server that is away, or a setting that is wrong, makes its client raise
            reason = f"{channel}: {error}"[:500]
            if isinstance(error, Refused) and error.message_only and len(group) > 1:
                waiting.extendleft([letter] for letter in reversed(group))  # one of them may be why
                continue
            failed += 1
            if isinstance(error, Refused) and error.message_only:
                refused.append((group, reason))
                continue
            # The server is away: who waits for it a thousand times tells nobody anything.
            later = [letter for following in waiting for letter in following]
            wait = _wait([*group, *later])
            _failed(desk, group, reason, wait, moment)
            _failed(desk, later, f"{channel}: not tried, since another message failed: {error}"[:500], wait, moment)
            break
        desk.sent(group, now=moment)
        sent, takes_others = sent + 1, True
    for group, reason in refused:
        _failed(desk, group, reason, _wait(group), moment, refused=takes_others)
    return Delivered(sent, failed)


def _wait(letters: Sequence[Letter]) -> timedelta:
    """As long as the message that failed the fewest times waits: the others wait with it."""
    return min(_FIRST_RETRY * 2 ** min(20, *(letter.attempts for letter in letters)), _LONGEST_RETRY)


def _together(channel: str, letters: list[Letter]) -> list[list[Letter]]:
    """Letters of one group and event, which follow each other, are one message."""
    if is_one_by_one(channel):
        return [[letter] for letter in letters]
    found = []
    for _, same in groupby(letters, key=lambda letter: (letter.message["group"], letter.message["event"])):
        members = list(same)
        found += [members[first : first + _TOGETHER] for first in range(0, len(members), _TOGETHER)]
    return found


def _failed(
    desk: Desk, letters: Sequence[Letter], reason: str, wait: timedelta, moment: datetime, refused: bool = False
) -> None:
    if letters:
        log.warning("%d alert(s) could not be sent: %s; again in %s", len(letters), reason, wait)
        desk.sent(letters, reason, moment + wait, moment, refused)
