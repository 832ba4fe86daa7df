"""Writes a model card (Mitchell et al., 2019) from the results of a training."""

from collections.abc import Mapping
from datetime import datetime

from city.models.examples import Split
from city.models.judge import Verdict
from city.models.model import Model, Parameters


def card(
    model: Model,
    parts: Split,
    parameters: Parameters,
    scores: Mapping[str, Mapping[str, float]],
    importance: Mapping[str, float],
    tags: Mapping[str, str],
    verdict: Verdict | None,
    now: datetime,
) -> str:
    """Returns the card as Markdown. `scores` are the metrics of the model, the naive baseline and the champion."""
    time, label = model.view.time, model.label
    lines = [
        f"# {model.name}",
        "",
        model.description,
        "",
        f"Trained {now:%Y-%m-%d %H:%M} UTC on `features/{model.view.name}`, Delta version {tags['data_version']}, "
        f"code {tags['code_version']}.",
        "",
        "## Prediction",
        "",
        f"For each {', '.join(model.view.entities)}: {label.description}{f' ({label.unit})' if label.unit else ''}"
        + (f", as one of {', '.join(label.classes)}." if label.classes else "."),
        "",
        "## Data",
        "",
        "| part | rows | from | to |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name.replace('_', ' ')} | {part.height:,} | {part[time].min():%Y-%m-%d %H:%M} "
            f"| {part[time].max():%Y-%m-%d %H:%M} |"
            for name, part in vars(parts).items()
        ),
        "",
        "## On the held-out rows",
        "",
        *_scores_table(scores),
        "",
        *(["Against the champion: " + verdict.reason + ".", ""] if verdict else ["There was no champion yet.", ""]),
        "## Most important inputs",
        "",
        "| input | loss grows, when shuffled, by |",
        "| --- | --- |",
        *(f"| {name} | {value:.4g} |" for name, value in sorted(importance.items(), key=lambda i: -i[1])[:10]),
        "",
        "## Parameters",
        "",
        *(f"- {name}: {value}" for name, value in parameters.items()),
        "",
        "## Limits",
        "",
        f"It knows {', '.join(model.inputs)}, and nothing else: no events, no road works, no weather that is not among "
        "them. Judged in a later stretch of time than it was fitted on; drift is watched from then on.",
    ]
    return "\n".join(lines) + "\n"


def _scores_table(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns the lines of a Markdown table with a row for each of `scores`."""
    names = list(dict.fromkeys(name for metrics in scores.values() for name in metrics))
    return [
        f"| | {' | '.join(names)} |",
        f"| --- |{' --- |' * len(names)}",
        *(
            f"| {judged} | {' | '.join(f'{metrics[n]:.4g}' if n in metrics else '' for n in names)} |"
            for judged, metrics in scores.items()
        ),
    ]
