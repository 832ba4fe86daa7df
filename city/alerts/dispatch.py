"""Sends the messages in the outbox: alarms of one group together, in their order, and repeatedly until accepted."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from city.alerts.channels import MessageRefused, is_one_by_one, sender
from city.alerts.model import AlertError
from city.alerts.outbox import OutboxMessage
from city.alerts.store import AlertStore
from city.settings import Settings

log = logging.getLogger(__name__)

_FIRST_RETRY, _LONGEST_RETRY = timedelta(seconds=30), timedelta(hours=1)
_SETTINGS_RETRY = timedelta(minutes=1)
_MAX_ALARMS = 50  # of one message
_SECONDS = 25.0
"""How long a round sends on a channel. Even with a slow last message it ends before the lease of the messages does."""


@dataclass(frozen=True)
class DeliveryResult:
    """How many messages were sent, and how many attempts failed."""

    sent: int = 0
    failed: int = 0


def deliver(store: AlertStore, config: Settings, now: datetime | None = None) -> DeliveryResult:
    """Sends the messages that are due. The channels are served in parallel: a slow channel delays no other.

    A message that fails is tried again, with a growing wait. A message may be sent twice where the process is killed
    before it has recorded that the message was sent.
    """
    moment, by_channel = now or datetime.now(UTC), dict[str, list[OutboxMessage]]()
    for message in store.outbox.lease(moment):
        by_channel.setdefault(message.channel, []).append(message)
    if not by_channel:
        return DeliveryResult()
    with ThreadPoolExecutor(len(by_channel), thread_name_prefix="deliver") as pool:
        results = list(
            pool.map(lambda name: _send_on_channel(store, config, name, by_channel[name], moment), by_channel)
        )
    return DeliveryResult(sum(result.sent for result in results), sum(result.failed for result in results))


def _send_on_channel(
    store: AlertStore, config: Settings, channel: str, messages: list[OutboxMessage], moment: datetime
) -> DeliveryResult:
    """Sends messages on one channel, until all are tried, the channel is unavailable or the time is over."""
    try:
        send = sender(config, channel)
    except AlertError as error:
        _record_failure(store, messages, str(error), _SETTINGS_RETRY, moment)
        return DeliveryResult(failed=1)
    sent = failed = 0
    refused, takes_others = list[tuple[list[OutboxMessage], str]](), False
    waiting, began = deque(_group_messages(channel, messages)), time.monotonic()
    while waiting:
        if time.monotonic() - began > _SECONDS:
            # The lease ends soon, and then another process may take the messages. The remaining ones wait for the next
            # round. Refused ones wait longer, so that they do not use up that round too.
            store.outbox.release([message for group in waiting for message in group], moment)
            takes_others = True
            break
        group = waiting.popleft()
        try:
            alarms = [alarm for message in group for alarm in message.message["alarms"]]
            send({**group[0].message, "alarms": alarms})
        except Exception as error:  # clients raise various errors for unavailable servers and wrong settings
            reason = f"{channel}: {error}"[:500]
            if isinstance(error, MessageRefused) and error.message_only and len(group) > 1:
                waiting.extendleft([message] for message in reversed(group))  # one of them may be the reason
                continue
            failed += 1
            if isinstance(error, MessageRefused) and error.message_only:
                refused.append((group, reason))
                continue
            # The server is unavailable: to wait for it again with each of a thousand messages would deliver none.
            later = [message for following in waiting for message in following]
            wait = _retry_wait([*group, *later])
            _record_failure(store, group, reason, wait, moment)
            untried = f"{channel}: not tried, since another message failed: {error}"[:500]
            _record_failure(store, later, untried, wait, moment)
            break
        store.outbox.record_attempt(group, now=moment)
        sent, takes_others = sent + 1, True
    for group, reason in refused:
        _record_failure(store, group, reason, _retry_wait(group), moment, refused=takes_others)
    return DeliveryResult(sent, failed)


def _retry_wait(messages: Sequence[OutboxMessage]) -> timedelta:
    """The wait before the next attempt: that of the message that failed the fewest times, for all of them."""
    attempts = min(message.attempts for message in messages)
    return min(_FIRST_RETRY * float(2 ** min(20, attempts)), _LONGEST_RETRY)


def _group_messages(channel: str, messages: list[OutboxMessage]) -> list[list[OutboxMessage]]:
    """The messages in the lists that are sent as one: consecutive ones of the same group and event."""
    if is_one_by_one(channel):
        return [[message] for message in messages]
    batches = []
    for _, same in groupby(messages, key=lambda message: (message.message["group"], message.message["event"])):
        members = list(same)
        batches += [members[first : first + _MAX_ALARMS] for first in range(0, len(members), _MAX_ALARMS)]
    return batches


def _record_failure(
    store: AlertStore,
    messages: Sequence[OutboxMessage],
    reason: str,
    wait: timedelta,
    moment: datetime,
    refused: bool = False,
) -> None:
    if messages:
        log.warning("%d alert(s) could not be sent: %s; next attempt in %s", len(messages), reason, wait)
        store.outbox.record_attempt(messages, reason, moment + wait, moment, refused)
