"""The rules in force: those of alerts.toml (CITY_ALERT_RULES), or the default ones; and the metrics that they test."""

import tomllib
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

from city.alerts.declared import declared_metrics, is_declared, nearest
from city.alerts.model import AlertError, Finding, Rule
from city.settings import Settings
from city.stack.state import STREAM, read_json
from city.stack.status import silent_sources, sources

DEFAULT = (
    Rule(
        name="stream_behind",
        metric="stream.lag.*",
        operator="greater",
        value=100_000,
        description="messages not yet read",
    ),
    Rule(name="stream_slow", metric="stream.p95_ms.*", operator="greater", value=60_000, description="event to bronze"),
    Rule(
        name="champion_missing",
        metric="model.champion.*",
        operator="equals",
        value=0,
        severity="error",
        description="a version was champion, and none is",
    ),
    Rule(
        name="model_fails",
        metric="model.error_rate.*",
        operator="greater",
        value=0.05,
        severity="error",
        description="of the requests of five minutes",
    ),
    Rule(
        name="model_slow",
        metric="model.answer_ms.*",
        operator="greater",
        value=250,
        description="on average of five minutes",
    ),
    Rule(
        name="features_stale",
        metric="model.features_stale.*",
        operator="equals",
        value=1,
        severity="error",
        description="events of its source arrive, but no recent row follows",
    ),
    Rule(name="quality_low", metric="quality.*", operator="less", value=0.9, severity="error", description="of 1"),
)
"""The rules without alerts.toml, about problems that no other alarm covers. A silent stream or source is the alarm of
its part (`city.alerts.system`)."""
_STALE_SECONDS = 60.0
_CATCH_UP_SECONDS = 60.0


FAMILIES = {
    "stream.alive": "1 while the stream reports",
    "stream.lag.": "messages of a topic that are not yet read",
    "stream.p95_ms.": "from an event to bronze, by topic",
    "stream.events_per_second.": "by topic",
    "stream.quarantined.": "rejected since the stream was started, by topic",
    "source.stalled.": "1 for a source that fell silent while its peers go on",
    "quality.": "the newest score of a dataset, 0 to 1",
    "model.": "of a champion: model.<metric>.<model>; of a feature view: model.features_stale.<view>",
    "system.disk_free_gb": "of the disk that holds CITY_HOME",
    "system.disk_free_share": "of the disk that holds CITY_HOME",
    "system.failing.": "1 for a part that is down, stands still or does not answer",
    "domain.active.": "alarms of a kind that are active: domain.active.<domain>.<kind>",
}
"""All metrics that rules can be about: by the beginning of their names, a description."""


def rules(config: Settings) -> tuple[Rule, ...]:
    """The rules in force, from the file that the settings name, or else `DEFAULT`.

    Raises AlertError for a file that contains no valid rules, a rule's name twice, or a metric that no part, dataset,
    model or domain has.
    """
    if config.alert_rules is None:
        return DEFAULT
    try:
        document = tomllib.loads(config.alert_rules.read_text())
        read = tuple(Rule(**_with_description(entry)) for entry in document["rule"])
    except AlertError as error:
        raise AlertError(f"CITY_ALERT_RULES: {config.alert_rules}: {error}") from None
    except (OSError, KeyError, TypeError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AlertError(
            f"CITY_ALERT_RULES: {config.alert_rules} holds no rules ({error!r}); each is a table "
            "[[rule]] with name, metric, operator, and where they apply value, severity, description"
        ) from error
    if twice := [name for name, count in Counter(rule.name for rule in read).items() if count > 1]:
        raise AlertError(f"CITY_ALERT_RULES: {config.alert_rules}: rule {twice[0]!r} stands there twice: rename one")
    declared = declared_metrics(config)
    for rule in read:
        if not is_declared(rule.metric, declared):
            has_family = any(rule.metric.startswith(family) for family in FAMILIES)
            mend = f"the nearest is {nearest(rule.metric, declared)!r}"
            raise AlertError(
                f"CITY_ALERT_RULES: {config.alert_rules}: rule {rule.name!r}: no metric {rule.metric!r}; "
                + (mend if has_family else f"they begin with {', '.join(FAMILIES)}; {mend}")
            )
    return read


def _with_description(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns a rule's entry in the file, with `description` in place of its earlier name `means`."""
    if "means" not in entry:
        return entry
    name = entry.get("name")
    warnings.warn(
        f"CITY_ALERT_RULES: rule {name!r}: `means` is named `description` now, and the next release reads only that",
        FutureWarning,
        stacklevel=2,
    )
    return {"description": entry["means"]} | {key: value for key, value in entry.items() if key != "means"}


def stream_metrics(config: Settings, now: float) -> dict[str, float | None]:
    """The metrics of the stream's last report; none where there is no report, or where it is too old.

    `now` is in seconds since the epoch.
    """
    report = read_json(config, STREAM)
    if report is None or now - report["at"] > _STALE_SECONDS:
        return {}
    if report["ended"]:  # the next stream process is starting
        return {"stream.alive": 1.0}
    metrics: dict[str, float | None] = {"stream.alive": 1.0}
    catches_up = now - report.get("started", 0.0) < _CATCH_UP_SECONDS
    for entry in report["streams"]:
        for name in ("lag", "p95_ms", "events_per_second", "quarantined"):
            metrics[f"stream.{name}.{entry['topic']}"] = entry[name]
        if catches_up:  # the events that came while nothing streamed are as old as that pause was long
            metrics[f"stream.p95_ms.{entry['topic']}"] = None
    return metrics


def source_metrics(config: Settings) -> dict[str, float | None]:
    """The metric `source.stalled.<name>` of each source: 1 where it fell silent while its peers continue."""
    silent = silent_sources(config)
    return {f"source.stalled.{name}": float(name in silent) for name in sorted({*sources(config), *silent})}


def evaluate(
    in_force: tuple[Rule, ...], metrics: Mapping[str, float | None], before: Mapping[str, float | None]
) -> list[Finding]:
    """The findings of all rules. `before` are the metrics of the evaluation before, for rules about changes."""
    return [finding for rule in in_force for finding in rule.findings(metrics, before)]
