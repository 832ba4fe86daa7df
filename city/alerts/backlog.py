"""The messages that wait on each channel, and the alarm of a channel that has accepted none for long.

The alarm of a channel is sent to the other channels only (`Notifier.post`). Its messages count for no channel's alarm.
So two channels that are unavailable neither prolong nor repeat each other's alarm.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from city.alerts.channels import addresses
from city.alerts.model import Finding
from city.alerts.outbox import CHANNEL_ALARMS, UnsentMessages
from city.alerts.store import AlertStore
from city.settings import Settings

WAITS = timedelta(minutes=5)
"""A channel on which a message waits for longer is an alarm."""


def complaints(unsent: Iterable[UnsentMessages], now: datetime) -> dict[str, str]:
    """The channels that do not accept their messages, with the reason. A failed attempt counts at once."""
    reasons = {}
    for channel in unsent:
        if channel.since is not None and (channel.attempts or now - channel.since > WAITS):
            reasons[channel.name] = _failure_text(channel)
    return reasons


def waiting(store: AlertStore, config: Settings) -> dict[str, int]:
    """How many messages wait on each channel that the settings name, or on which messages still wait."""
    named = dict.fromkeys((address.name for address in addresses(config)), 0)
    return named | {channel.name: channel.waiting for channel in store.outbox.unsent()}


def findings(store: AlertStore, config: Settings, active: Iterable[str], now: datetime, began: float) -> list[Finding]:
    """One finding for each channel: whether it has accepted nothing for long.

    `active` are the causes of the active alarms. `began` (seconds since the epoch) is when this process or the platform
    began to send. Time before that does not count, because nobody tried to send then.
    """
    named = {address.name for address in addresses(config)}
    unsent = {channel.name: channel for channel in store.outbox.unsent(about_channels=False)}
    raised = {cause.removeprefix(CHANNEL_ALARMS) for cause in active if cause.startswith(CHANNEL_ALARMS)}
    return [
        _channel_finding(name, unsent.get(name), name in named, now, began)
        for name in sorted(named | unsent.keys() | raised)
    ]


def _channel_finding(name: str, unsent: UnsentMessages | None, is_named: bool, now: datetime, began: float) -> Finding:
    cause = f"{CHANNEL_ALARMS}{name}"
    if unsent is None or unsent.since is None:
        return Finding(cause, state="passing")
    lasting = now.timestamp() - max(unsent.since.timestamp(), began)
    is_away = unsent.attempts and lasting > WAITS.total_seconds()
    return Finding(
        cause,
        # A channel that is no longer in the settings seems to be unused: it is no reason to wake somebody.
        "error" if is_named else "warning",
        f"the alarm channel {name} accepts no messages: {_failure_text(unsent)}",
        "system",
        {"channel": name, "waiting": unsent.waiting, "attempts": unsent.attempts, "error": unsent.error},
        "failing" if is_away else "unknown",
        {"type": "channel"},
    )


def _failure_text(unsent: UnsentMessages) -> str:
    assert unsent.since is not None
    wait = f"{unsent.waiting} waiting since {unsent.since:%Y-%m-%d %H:%M:%S} UTC"
    return f"{wait}: {unsent.error}" if unsent.error else f"{wait}, and none was tried"
