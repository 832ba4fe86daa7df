"""Trains a model on the lake's rows, and says whether there are enough of them."""

from collections.abc import Mapping
from datetime import datetime
from typing import cast

import polars as pl

from city.file_lock import file_lock
from city.lake.snapshot import Snapshot
from city.models import examples
from city.models.fitting import Progress
from city.models.history import growth, training_rows, view_table
from city.models.model import Model, ModelError
from city.models.registry import Registry
from city.models.retraining import check_growth
from city.models.train import TrainingResult, train
from city.settings import Settings, settings


def train_on(
    model: Model,
    snapshot: Snapshot,
    config: Settings,
    registry: Registry,
    progress: Progress = print,
    tags: Mapping[str, str] | None = None,
) -> TrainingResult:
    """Trains a model on the newest rows of its view, with each table read at one version.

    `Model.history` and `Model.most_rows` limit the rows. A model has at most one training at a time: a second one waits
    for the first. `progress` receives lines of text, `tags` go to the run and the version in MLflow.

    Raises ModelError if the view has not been built yet.
    """
    version = view_table(model, snapshot).version()
    rows = training_rows(model, snapshot).collect()
    truth = read_truth(model, snapshot, cast("datetime | None", rows[model.view.time].min()))
    truth_table = snapshot.table(model.label.truth) if model.label.truth else None
    versions = {} if truth_table is None else {"truth_version": str(truth_table.version())}
    folder = config.home / "models"
    folder.mkdir(parents=True, exist_ok=True)
    automatic = config.promote == "automatic"
    with file_lock(folder / model.name):
        return train(
            model,
            rows,
            registry,
            truth=truth,
            data_version=version,
            home=config.home,
            promote=automatic,
            tags={**(tags or {}), **versions},
            progress=progress,
        )


def training_shortage(model: Model, snapshot: Snapshot) -> str | None:
    """Returns why the model cannot be trained yet, as a text that names it, or None if it can be trained.

    Reads the Delta log first. If the view has grown enough, makes the split of a training, from the few columns that
    the split depends on and the rows that a training would read.
    """
    time = model.view.time
    needed = {time, *model.view.entities, *model.label.source_features, *model.groups}
    needed.update(pl.sql_expr(model.where).meta.root_names())
    try:
        check_growth(model, growth(model, snapshot, None, settings().timezone))
        rows = examples.newest(model, training_rows(model, snapshot).select(sorted(needed)).collect())
        truth = read_truth(model, snapshot, cast("datetime | None", rows[time].min()))
        examples.check_parts(model, examples.check_known(model, rows, examples.label_rows(model, rows, truth)))
    except ModelError as error:
        return str(error)
    return None


def read_truth(model: Model, snapshot: Snapshot, begin: datetime | None) -> pl.DataFrame | None:
    """Reads the truth that the model's label needs for view rows from the time `begin` on.

    The truth is the table `model.label.truth`, which holds the outcomes. Returns no rows if `begin` is None. Returns
    None if the label has no truth table, or if the table does not exist yet.
    """
    table = snapshot.table(model.label.truth) if model.label.truth else None
    if table is None:
        return None
    rows = pl.scan_delta(table)
    return (rows.head(0) if begin is None else rows.filter(model.label.truth_condition(begin))).collect()
