"""Where messages go: webhooks (plain JSON, or Slack's), e-mail by SMTP, and an SMS gateway by HTTP."""

import smtplib
import ssl
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from typing import Any

import requests

from city.alerts.model import SEVERITIES, AlertError, Severity
from city.settings import Settings

_SECONDS = 10
_SMS_CHARACTERS = 160
Send = Callable[[Mapping[str, Any]], None]


def channels(config: Settings) -> dict[str, tuple[Severity, Send]]:
    """The channels that the settings name, each with the least severity that it is for. `send` raises when a message
    was not taken."""
    found: dict[str, tuple[Severity, Send]] = {}
    if config.alert_webhook_url:
        url = config.alert_webhook_url.get_secret_value()
        found["webhook"] = ("info", lambda message: _post(url, dict(message)))
    if config.alert_slack_url:
        slack = config.alert_slack_url.get_secret_value()
        found["slack"] = ("warning", lambda message: _post(slack, _slack(message)))
    if config.alert_email_to:
        if not config.smtp_address:
            raise AlertError("CITY_ALERT_EMAIL_TO is set, and no server to send by: set CITY_SMTP_ADDRESS (host:port)")
        found["email"] = ("warning", lambda message: _mail(config, message))
    if config.alert_sms_url:
        gateway = config.alert_sms_url.get_secret_value()
        found["sms"] = ("error", lambda message: _post(gateway, _sms(config, message)))
    return found


def wanted(least: Severity, severity: Severity) -> bool:
    return SEVERITIES.index(severity) >= SEVERITIES.index(least)


def text(message: Mapping[str, Any]) -> str:
    """A message in words: a line for each of its alarms."""
    lines = [
        f"[{a['severity']}] {a['title']} ({a['event']}, {a['count']} times, alarm {a['id']})" for a in message["alarms"]
    ]
    return "\n".join([f"City: {message['group'] or 'data'}", *lines])


def _post(url: str, body: dict[str, Any]) -> None:
    answer = requests.post(url, json=body, timeout=_SECONDS)
    if not answer.ok:
        raise ConnectionError(f"the server answered {answer.status_code}: {answer.text[:200]}")


def _slack(message: Mapping[str, Any]) -> dict[str, Any]:
    """Slack's incoming webhooks: docs.slack.dev/messaging/sending-messages-using-incoming-webhooks."""
    escaped = text(message).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": escaped, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": escaped[:3000]}}]}


def _sms(config: Settings, message: Mapping[str, Any]) -> dict[str, Any]:
    return {"to": config.alert_sms_to, "text": text(message)[:_SMS_CHARACTERS]}


def _mail(config: Settings, message: Mapping[str, Any]) -> None:
    assert config.smtp_address is not None
    host, _, port = config.smtp_address.rpartition(":")
    letter = EmailMessage()
    gravest = max((a["severity"] for a in message["alarms"]), key=SEVERITIES.index)
    letter["Subject"] = f"[{gravest}] {message['group'] or 'data'}: {len(message['alarms'])} alarm(s)".replace(
        "\n", " "
    )
    letter["From"], letter["To"] = config.alert_email_from, ", ".join(config.alert_email_to)
    letter.set_content(text(message))
    with smtplib.SMTP(host, int(port), timeout=_SECONDS) as server:
        if config.smtp_tls:
            server.starttls(context=ssl.create_default_context())
        if config.smtp_username and config.smtp_password:
            server.login(config.smtp_username, config.smtp_password.get_secret_value())
        server.send_message(letter)
