"""What waits on each channel, and the alarm of a channel that has taken nothing for long.

The alarm of a channel goes to the others only (`Notifier.post`), and its messages count for no channel's alarm: two
channels that are away neither keep each other's alarm up nor bring it back.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from city.alerts.channels import addresses
from city.alerts.model import Finding
from city.alerts.outbox import CHANNEL_ALARMS, Unsent
from city.alerts.store import AlertStore
from city.settings import Settings

WAITS = timedelta(minutes=5)
"""A channel on which a message waits for longer is an alarm."""


def complaints(unsent: Iterable[Unsent], now: datetime) -> dict[str, str]:
    """The channels that do not take their messages, with the reason: at once where an attempt failed."""
    found = {}
    for channel in unsent:
        if channel.since is not None and (channel.attempts or now - channel.since > WAITS):
            found[channel.name] = _said(channel)
    return found


def waiting(store: AlertStore, config: Settings) -> dict[str, int]:
    """How many messages wait on each channel that the settings name, or that still has some."""
    named = dict.fromkeys((address.name for address in addresses(config)), 0)
    return named | {channel.name: channel.waiting for channel in store.outbox.unsent()}


def findings(store: AlertStore, config: Settings, active: Iterable[str], now: datetime, began: float) -> list[Finding]:
    """One for each channel. `active` are the causes of alarms that are active; `began` is when somebody began to look
    (seconds since the epoch): while nobody sent anything, as before the platform was started, no channel was away."""
    named = {address.name for address in addresses(config)}
    unsent = {channel.name: channel for channel in store.outbox.unsent(about_channels=False)}
    raised = {cause.removeprefix(CHANNEL_ALARMS) for cause in active if cause.startswith(CHANNEL_ALARMS)}
    return [
        _finding(name, unsent.get(name), name in named, now, began) for name in sorted(named | unsent.keys() | raised)
    ]


def _finding(name: str, unsent: Unsent | None, is_named: bool, now: datetime, began: float) -> Finding:
    cause = f"{CHANNEL_ALARMS}{name}"
    if unsent is None or unsent.since is None:
        return Finding(cause, state="passing")
    lasting = now.timestamp() - max(unsent.since.timestamp(), began)
    is_away = unsent.attempts and lasting > WAITS.total_seconds()
    return Finding(
        cause,
        # One that nobody wants any more, as it seems, is no reason to wake somebody.
        "error" if is_named else "warning",
        f"the alarm channel {name} takes no messages: {_said(unsent)}",
        "system",
        {"channel": name, "waiting": unsent.waiting, "attempts": unsent.attempts, "error": unsent.error},
        "failing" if is_away else "unknown",
        {"type": "channel"},
    )


def _said(unsent: Unsent) -> str:
    assert unsent.since is not None
    wait = f"{unsent.waiting} waiting since {unsent.since:%Y-%m-%d %H:%M:%S} UTC"
    return f"{wait}: {unsent.error}" if unsent.error else f"{wait}, and none was tried"
