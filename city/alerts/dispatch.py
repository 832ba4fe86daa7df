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
from city.alerts.model import AlertError
from city.alerts.outbox import OutboxMessage
from city.alerts.store import AlertStore
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


def deliver(store: AlertStore, config: Settings, now: datetime | None = None) -> Delivered:
    """Sends what is due, on all channels side by side: one that is slow holds back no other. What fails is tried again,
    ever more seldom. A message may be sent twice where the process is killed before it has written down that it was.
    """
    moment, by_channel = now or datetime.now(UTC), dict[str, list[OutboxMessage]]()
    for message in store.outbox.lease(moment):
        by_channel.setdefault(message.channel, []).append(message)
    if not by_channel:
        return Delivered()
    with ThreadPoolExecutor(len(by_channel), thread_name_prefix="deliver") as pool:
        done = list(pool.map(lambda of: _on_channel(store, config, of, by_channel[of], moment), by_channel))
    return Delivered(sum(one.sent for one in done), sum(one.failed for one in done))


def _on_channel(
    store: AlertStore, config: Settings, channel: str, messages: list[OutboxMessage], moment: datetime
) -> Delivered:
    try:
        send = sender(config, channel)
    except AlertError as error:
        _failed(store, messages, str(error), _SETTINGS_RETRY, moment)
        return Delivered(failed=1)
    sent = failed = 0
    refused, takes_others = list[tuple[list[OutboxMessage], str]](), False
    waiting, began = deque(_together(channel, messages)), time.monotonic()
    while waiting:
        if time.monotonic() - began > _SECONDS:
            # Soon somebody else may take them: what is left waits for the next round, and what was refused for longer,
            # so that it does not use up that round too.
            store.outbox.release([message for group in waiting for message in group], moment)
            takes_others = True
            break
        group = waiting.popleft()
        try:
            alarms = [alarm for message in group for alarm in message.message["alarms"]]
            send({**group[0].message, "alarms": alarms})
        except Exception as error:  # whatever a server that is away, or a setting that is wrong, makes its client raise
            reason = f"{channel}: {error}"[:500]
            if isinstance(error, Refused) and error.message_only and len(group) > 1:
                waiting.extendleft([message] for message in reversed(group))  # one of them may be why
                continue
            failed += 1
            if isinstance(error, Refused) and error.message_only:
                refused.append((group, reason))
                continue
            # The server is away: who waits for it a thousand times tells nobody anything.
            later = [message for following in waiting for message in following]
            wait = _wait([*group, *later])
            _failed(store, group, reason, wait, moment)
            _failed(store, later, f"{channel}: not tried, since another message failed: {error}"[:500], wait, moment)
            break
        store.outbox.record_attempt(group, now=moment)
        sent, takes_others = sent + 1, True
    for group, reason in refused:
        _failed(store, group, reason, _wait(group), moment, refused=takes_others)
    return Delivered(sent, failed)


def _wait(messages: Sequence[OutboxMessage]) -> timedelta:
    """As long as the message that failed the fewest times waits: the others wait with it."""
    return min(_FIRST_RETRY * 2 ** min(20, *(message.attempts for message in messages)), _LONGEST_RETRY)


def _together(channel: str, messages: list[OutboxMessage]) -> list[list[OutboxMessage]]:
    """Letters of one group and event, which follow each other, are one message."""
    if is_one_by_one(channel):
        return [[message] for message in messages]
    found = []
    for _, same in groupby(messages, key=lambda message: (message.message["group"], message.message["event"])):
        members = list(same)
        found += [members[first : first + _TOGETHER] for first in range(0, len(members), _TOGETHER)]
    return found


def _failed(
    store: AlertStore,
    messages: Sequence[OutboxMessage],
    reason: str,
    wait: timedelta,
    moment: datetime,
    refused: bool = False,
) -> None:
    if messages:
        log.warning("%d alert(s) could not be sent: %s; again in %s", len(messages), reason, wait)
        store.outbox.record_attempt(messages, reason, moment + wait, moment, refused)
