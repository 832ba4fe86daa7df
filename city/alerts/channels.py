"""Sends messages on channels: webhooks (plain JSON, or Slack's), PagerDuty, e-mail by SMTP, an SMS gateway by HTTP."""

import json
import smtplib
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any
from urllib.parse import urlsplit

import requests

from city.alerts.model import AlertError
from city.settings import Settings
from city.severity import SEVERITIES, Severity

_CONNECT_SECONDS, _SECONDS = 5.0, 10.0
_ANSWER_BYTES = 65_536
_SMS_CHARACTERS = 160
_SLACK_CHARACTERS = 3_000  # of one block
_SUMMARY_CHARACTERS = 1_024
_LINE_CHARACTERS = 300
_NAME_CHARACTERS = 30
Message = Mapping[str, Any]
"""`group`, `event` and `alarms` (as dictionaries); all alarms belong to that group and had that event."""
Send = Callable[[Message], None]
"""Sends a message. Raises MessageRefused, or the error of its client, where the message was not accepted."""


class MessageRefused(ConnectionError):
    """A server has answered that it does not accept a message. With `message_only` it may accept another one."""

    def __init__(self, text: str, message_only: bool = False) -> None:
        super().__init__(text)
        self.message_only = message_only


@dataclass(frozen=True)
class Address:
    """A channel that the settings name, whether or not the settings are valid."""

    name: str
    least: Severity
    """The lowest severity that the channel gets messages of."""
    follows: bool = False
    """Whether the channel keeps incidents of its own, which are acknowledged when the alarms are."""

    def wants(self, severity: Severity) -> bool:
        """Whether the channel gets messages about an alarm of that severity."""
        return SEVERITIES.index(severity) >= SEVERITIES.index(self.least)


def addresses(config: Settings) -> list[Address]:
    """The channels that the settings name."""
    candidates = [
        (config.alert_webhook_url, Address("webhook", config.alert_webhook_least)),
        (config.alert_slack_url, Address("slack", config.alert_slack_least)),
        (config.alert_email_to, Address("email", config.alert_email_least)),
        (config.alert_sms_url, Address("sms", config.alert_sms_least)),
        (config.alert_pagerduty_key, Address("pagerduty", config.alert_pagerduty_least, follows=True)),
    ]
    return [address for setting, address in candidates if setting]


def sender(config: Settings, name: str) -> Send:
    """The function that sends a message on a channel. Raises AlertError, with the fix, for incomplete settings."""
    if name == "webhook" and config.alert_webhook_url:
        url = config.alert_webhook_url.get_secret_value()
        return lambda message: _post_json(url, dict(message))
    if name == "slack" and config.alert_slack_url:
        slack = config.alert_slack_url.get_secret_value()
        return lambda message: _post_json(slack, _slack_body(message))
    if name == "email" and config.alert_email_to:
        if not config.smtp_address:
            raise AlertError("CITY_ALERT_EMAIL_TO is set, and no server to send by: set CITY_SMTP_ADDRESS (host:port)")
        host, _, port = config.smtp_address.rpartition(":")
        if not (host and port.isdigit()):
            raise AlertError(f"CITY_SMTP_ADDRESS: {config.smtp_address!r} is not host:port, such as mail.city:587")
        return lambda message: _send_mail(config, host, int(port), message)
    if name == "sms" and config.alert_sms_url:
        gateway = config.alert_sms_url.get_secret_value()
        if not config.alert_sms_to:
            raise AlertError("CITY_ALERT_SMS_URL is set, and no number to send to: set CITY_ALERT_SMS_TO")
        return lambda message: _post_json(gateway, _sms_body(config, message))
    if name == "pagerduty" and config.alert_pagerduty_key:
        key = config.alert_pagerduty_key.get_secret_value()
        return lambda message: _post_incident(config.alert_pagerduty_url, key, message)
    raise AlertError(
        f"the channel {name!r} is no longer in the settings, and has messages to send: set it again, or drop "
        f"them: city alerts drop {name}"
    )


def is_one_by_one(name: str) -> bool:
    """Whether each message of a channel has exactly one alarm."""
    return name == "pagerduty"


def text(message: Message, max_characters: int = 100_000) -> str:
    """The text of a message, at most `max_characters` long: a line for each alarm, and how many more there are.

    The first alarm is always included; its title is shortened where the line is too long.
    """
    lines = [f"City: {_shorten(message['group'] or 'data', max_characters // 4)}"]
    left = len(message["alarms"])
    for alarm in message["alarms"]:
        left -= 1
        more = [f"... and {left} more"] if left else []
        room = max_characters - len("\n".join([*lines, "", *more]))
        line = _alarm_line(alarm, min(_LINE_CHARACTERS, room) if len(lines) == 1 else _LINE_CHARACTERS)
        if len(line) > room:
            return "\n".join([*lines, f"... and {left + 1} more"])
        lines.append(line)
    return "\n".join(lines)


def _alarm_line(alarm: Mapping[str, Any], max_characters: int) -> str:
    """The line of an alarm, at most `max_characters` long. Only the title is shortened, never the event."""
    assignee = f", {_shorten(alarm['assignee'], _NAME_CHARACTERS)}'s" if alarm.get("assignee") else ""
    repeats = "once" if alarm["count"] == 1 else f"{alarm['count']} times"
    begins, ends = f"[{alarm['severity']}] {alarm['event']}: ", f" (alarm {alarm['id']}, {repeats}{assignee})"
    return begins + _shorten(" ".join(alarm["title"].split()), max_characters - len(begins) - len(ends)) + ends


def _post_json(url: str, body: dict[str, Any]) -> None:
    ends = time.monotonic() + _SECONDS
    try:
        response = requests.post(url, json=body, timeout=(_CONNECT_SECONDS, _SECONDS), stream=True)
    except requests.RequestException as error:  # its text contains the URL, and so the channel's secret
        raise ConnectionError(f"no answer from {urlsplit(url).hostname}: {type(error).__name__}") from None
    with response as answer:
        content = b""
        for piece in answer.iter_content(8192):
            content += piece
            if len(content) > _ANSWER_BYTES:
                break
            if time.monotonic() > ends:
                raise TimeoutError(f"no whole answer within {_SECONDS:g} s")
        excerpt = content.decode(errors="replace")[:200]
        if not answer.ok:
            # 408 and 429 are about the moment, and 401, 403 and 404 about the settings. The other 4xx are about the
            # message.
            message_only = 400 <= answer.status_code < 500 and answer.status_code not in (401, 403, 404, 408, 429)
            raise MessageRefused(f"the server answered {answer.status_code}: {excerpt}", message_only)
        if _is_refusal(content):
            raise MessageRefused(f"the server answered {answer.status_code}, and that it failed: {excerpt}")


def _is_refusal(content: bytes) -> bool:
    """Whether the content of an answer with a status of success reports a failure."""
    try:
        body = json.loads(content)
    except ValueError:
        return False
    if not isinstance(body, dict):
        return False
    failed = body.get("status") in ("error", "failed", "failure", "invalid event")
    return failed or body.get("ok") is False or body.get("success") is False or bool(body.get("error"))


def _slack_body(message: Message) -> dict[str, Any]:
    """The body for Slack's incoming webhooks: docs.slack.dev/messaging/sending-messages-using-incoming-webhooks.

    The block is plain text, where Slack interprets no markup. Notifications show `text`, where Slack does, so that one
    is escaped.
    """
    plain = text(message, _SLACK_CHARACTERS)
    escaped = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    block = {"type": "section", "text": {"type": "plain_text", "text": plain, "emoji": False}}
    return {"text": escaped, "blocks": [block]}


def _sms_body(config: Settings, message: Message) -> dict[str, Any]:
    return {"to": config.alert_sms_to, "text": text(message, _SMS_CHARACTERS)}


def _post_incident(url: str, key: str, message: Message) -> None:
    """Sends an alarm to PagerDuty's Events API v2: developer.pagerduty.com/docs/events-api-v2.

    The key of an alarm, of at most 255 characters, identifies the incident. So a message that is sent twice is one
    incident, and alarms of two cities are two.
    """
    (alarm,) = message["alarms"]
    actions = {"acknowledged": "acknowledge", "cleared": "resolve"}
    body: dict[str, Any] = {
        "routing_key": key,
        "event_action": actions.get(alarm["event"], "trigger"),
        # A message of an earlier version, which has no key, may still wait in the outbox.
        "dedup_key": alarm.get("dedup_key", f"city-alarm-{alarm['id']}"),
    }
    if body["event_action"] == "trigger":
        body["payload"] = {
            "summary": _alarm_line(alarm, _SUMMARY_CHARACTERS),
            "source": alarm["cause"],
            "severity": alarm["severity"],
            "timestamp": alarm["last_at"],
            "group": message["group"] or "data",
            "class": alarm["labels"].get("type") or alarm["cause"].split("/")[0],
            "custom_details": {**(alarm["detail"] or {}), **alarm["labels"]},
        }
        body["client"] = "City"
    _post_json(url, body)


def _send_mail(config: Settings, host: str, port: int, message: Message) -> None:
    letter = EmailMessage()
    gravest = max((a["severity"] for a in message["alarms"]), key=SEVERITIES.index)
    subject = f"[{gravest}] {message['group'] or 'data'}: {len(message['alarms'])} alarm(s) {message['event']}"
    letter["Subject"] = " ".join(subject.split())
    letter["From"], letter["To"] = config.alert_email_from, ", ".join(config.alert_email_to)
    letter.set_content(text(message))
    with smtplib.SMTP(host, port, timeout=_SECONDS) as server:
        if config.smtp_tls:
            server.starttls(context=ssl.create_default_context())
        if config.smtp_username and config.smtp_password:
            server.login(config.smtp_username, config.smtp_password.get_secret_value())
        server.send_message(letter)


def _shorten(string: str, max_characters: int) -> str:
    return string if len(string) <= max_characters else string[: max_characters - 1] + "…"
