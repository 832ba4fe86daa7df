"""Draws the figures of a training for people."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from city.models import examples
from city.models.anomaly import SCORE
from city.models.fitting import FittedModel
from city.models.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(model: Model, fitted: FittedModel) -> Mapping[str, "Figure"]:
    """Draws the figures for people: predictions against outcomes, and the inputs that matter."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    outcome = Figure(figsize=(5, 5), layout="tight")
    axes = outcome.subplots()
    actual = examples.labels(model, fitted.parts.held_out)
    if model.kind == "anomaly":
        axes.hist(np.log10(np.maximum(fitted.predicted[:, SCORE], 1e-3)), bins=60)
        axes.axvline(0, color="grey")
        axes.set(xlabel="score of normal rows, as a power of ten; over 0 an alarm", ylabel="rows", title=model.name)
    elif model.kind == "regression":
        axes.hexbin(actual, fitted.predicted, gridsize=40, mincnt=1, cmap="viridis")
        axes.axline((float(actual.mean()), float(actual.mean())), slope=1, color="grey")
        axes.set(xlabel=f"came ({model.label.unit})", ylabel=f"predicted ({model.label.unit})", title=model.name)
    else:
        classes = model.label.classes
        table = np.zeros((len(classes), len(classes)), int)
        np.add.at(table, (actual, fitted.predicted.argmax(1)), 1)
        axes.imshow(table / np.maximum(table.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(table):
            axes.text(column, row, f"{count:,}", ha="center", va="center")
        places = range(len(classes))
        axes.set(xticks=places, yticks=places, xticklabels=classes, yticklabels=classes)
        axes.set(xlabel="predicted", ylabel="came", title=model.name)
    weights = Figure(figsize=(6, 4), layout="tight")
    names = sorted(fitted.importance, key=lambda name: fitted.importance[name])[-12:]
    bars = weights.subplots()
    bars.barh(names, [fitted.importance[name] for name in names])
    bars.set(xlabel="growth of the loss when shuffled", title=model.name)
    return {"outcome.png": outcome, "importance.png": weights}
