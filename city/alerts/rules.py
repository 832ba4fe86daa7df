"""The rules in force: those of alerts.toml (CITY_ALERT_RULES), or these few; and the metrics that they look at."""

import tomllib
from collections.abc import Mapping
from typing import Any

from city.alerts.model import AlertError, Finding, Rule
from city.settings import Settings
from city.stack.state import STREAM, read_json
from city.stack.status import silent_sources

DEFAULT = (
    Rule(name="stream_silent", metric="stream.alive", operator="absent", severity="error", means="no stream reports"),
    Rule(name="stream_behind", metric="stream.lag.*", operator="greater", value=100_000, means="messages not yet read"),
    Rule(name="stream_slow", metric="stream.p95_ms.*", operator="greater", value=60_000, means="event to bronze"),
    Rule(
        name="source_silent",
        metric="source.stalled.*",
        operator="greater",
        value=0,
        severity="error",
        means="fell silent while its peers go on",
    ),
    Rule(name="quality_low", metric="quality.*", operator="less", value=0.9, severity="error", means="of 1"),
)
_STALE_SECONDS = 60.0


def rules(config: Settings) -> tuple[Rule, ...]:
    """Raises AlertError for a file that is not of rules."""
    if config.alert_rules is None:
        return DEFAULT
    try:
        found = tomllib.loads(config.alert_rules.read_text())
        return tuple(Rule(**entry) for entry in found["rule"])
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise AlertError(
            f"CITY_ALERT_RULES: {config.alert_rules} holds no rules ({error!r}); each is a table "
            "[[rule]] with name, metric, operator, and where they apply value, severity, means"
        ) from error


def stream_metrics(config: Settings, now: float) -> dict[str, float | None]:
    """What the stream last said of itself; without it, of a stream that is silent, nothing."""
    report: Mapping[str, Any] | None = read_json(config, STREAM)
    if report is None or report["ended"] or now - report["at"] > _STALE_SECONDS:
        return {}
    found: dict[str, float | None] = {"stream.alive": 1.0}
    for entry in report["streams"]:
        for name in ("lag", "p95_ms", "events_per_second", "quarantined"):
            found[f"stream.{name}.{entry['topic']}"] = entry[name]
    return found


def source_metrics(config: Settings) -> dict[str, float | None]:
    """`source.stalled.<name>` of each source that fell silent while its peers go on."""
    return {f"source.stalled.{name}": 1.0 for name in silent_sources(config)}


def evaluate(
    in_force: tuple[Rule, ...], metrics: Mapping[str, float | None], before: Mapping[str, float | None]
) -> list[Finding]:
    return [finding for rule in in_force for finding in rule.findings(metrics, before)]
