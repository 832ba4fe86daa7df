"""Elec2, the classic stream with concept drift: will New South Wales' electricity price be up or down? Test, then
train, in order of time; trained anew where errors have grown.

A half hour's message comes through a source and a contract, its features are those of a table's transform, and the
model is declared as a city's are. The exported model of each training predicts.

The class says whether the price is above its mean of the last day, so a feature of just that would give it away (it is
right in 99.7 % of cases). The features are the row's own columns and what is different from earlier rows.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from benchmarks._real import real
from benchmarks._served import as_bronze
from city.arrays import Floats
from city.contracts import Contract, Field
from city.features.events import calendar_of
from city.features.plan import Plan
from city.features.views import View
from city.models.boosting import boosted_trees
from city.models.examples import inputs, label_rows, labels
from city.models.exported import Exported
from city.models.fitting import fit_exported
from city.models.labels import NAIVE, FutureValue
from city.models.model import Model
from city.models.prequential import live
from city.sources.model import At, Source
from city.tables.model import Column, Frame, Table
from city.tables.model import Source as TableSource
from city.tables.silver import silver_table

BEGIN, HALF_HOUR = datetime(1996, 5, 7, tzinfo=UTC), timedelta(minutes=30)
"""When the stream begins: the file has only the half hour of the day."""
BLOCK = 48  # a day of half hours
MEMORY, WATCH = 6_000, 96
PUBLISHED = {"no change": 0.8533, "leveraging bagging": 0.862}
_DAY, _WEEK = 48, 336
_OWN = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
_DIFFERENCES = {"nswprice": (1, 2, _DAY), "nswdemand": (1, _DAY)}
_LABELS = (1, 2, _DAY, _WEEK)

PRICES = Contract(
    name="electricity_prices",
    topic="electricity_prices",
    version=1,
    description="The electricity market of a half hour, each quantity between its least and its largest value.",
    key="market",
    event_time="timestamp",
    fields=(
        Field(name="market", kind="string", description="the market", pattern="[a-z]{1,8}"),
        Field(name="timestamp", kind="timestamp", description="the beginning of the half hour"),
        *(Field(name=name, kind="float", minimum=0, maximum=1, description=name) for name in _OWN),
        Field(name="rises", kind="float", minimum=0, maximum=1, description="1 for a price above the last day's mean"),
    ),
)
MARKET = Source(
    name="electricity_market",
    contract=PRICES,
    description="The half hours of the market of New South Wales.",
    documentation="https://www.openml.org/d/151",
    sample='{"market": "nsw", "at": "1996-05-07T00:00:00Z", "period": 0.0, "nswprice": 0.056, "nswdemand": 0.439, '
    '"vicprice": 0.003, "vicdemand": 0.423, "transfer": 0.415, "class": 1}',
    fields={
        "market": At("market"),
        "timestamp": At("at"),
        **{name: At(name) for name in _OWN},
        "rises": At("class"),
    },
)
_CHANGES = tuple(f"{name}_change_{ago}" for name, times in _DIFFERENCES.items() for ago in times)
_CLASSES = tuple(f"class_{ago}" for ago in _LABELS)


def market_features(prices: Frame) -> Frame:
    """Computes the features of each half hour: its own quantities, their changes, and the classes before it."""

    def earlier(name: str, ago: int) -> nw.Expr:
        return nw.col(name).shift(ago).over("market", order_by="timestamp")

    features = prices.with_columns(
        **{f"class_{ago}": earlier("rises", ago) for ago in range(1, _DAY + 1)},
        **{f"class_{_WEEK}": earlier("rises", _WEEK)},
        **{
            f"{name}_change_{ago}": nw.col(name) - earlier(name, ago)
            for name, times in _DIFFERENCES.items()
            for ago in times
        },
    )
    return features.with_columns(
        class_mean=nw.mean_horizontal(*(f"class_{ago}" for ago in range(1, _DAY + 1))).round(6)
    )


def _number(name: str) -> Column:
    return Column(name=name, kind="float", nullable=True, description=name, origins=(f"prices.{name}",))


FEATURES = Table(
    name="market_features",
    layer="features",
    description="What is known of a half hour of the market.",
    key=("market", "timestamp"),
    time="timestamp",
    columns=(
        Column(name="market", kind="string", description="the market"),
        Column(name="timestamp", kind="timestamp", description="the beginning of the half hour"),
        *(_number(name) for name in (*_OWN, *_CLASSES, *_CHANGES, "class_mean")),
        Column(name="day", kind="date", description="the local date"),
    ),
    sources={"prices": TableSource(table=f"silver/{PRICES.name}", days_before=8)},
    transform=market_features,
    look_back=_WEEK,
)
MODEL = Model(
    name="electricity_price",
    description="Whether the price of this half hour is above its mean of the last day, known half an hour later.",
    features=FEATURES.name,
    own_view=View(FEATURES),
    inputs=(*_OWN, *_CLASSES, *_CHANGES, "class_mean"),
    # The class of this half hour is the one before that of the next half hour.
    label=FutureValue(
        column="class_1",
        after=HALF_HOUR,
        tolerance=timedelta(0),
        classes=("down", "up"),
        transform=lambda value: pl.when(value > 0.5).then(pl.lit("up")).otherwise(pl.lit("down")),
    ),
    estimator=boosted_trees("classification"),
    defaults={"max_iter": 60, "max_leaf_nodes": 15},
)


def run(tell: Callable[[str], None]) -> dict[str, Any]:
    """Accuracy over the whole stream but its first day, beside that of "as half an hour ago"."""
    rows = label_rows(MODEL, read_features())
    x, y = inputs(MODEL, rows), labels(MODEL, rows)
    naive = rows[NAIVE].cast(pl.Enum(MODEL.label.classes)).to_physical().to_numpy()
    life = live(x, y, _Trained.fit, block=BLOCK, memory=MEMORY, watch=WATCH)
    judged = ~np.isnan(life.predicted)
    tell(f"trained {len(life.trained_at)} times over {len(y):,} half hours")
    once = _Trained.fit(x[:MEMORY], y[:MEMORY]).predict(x[MEMORY:])
    return {
        "bench": "elec2",
        "accuracy": round(float((life.predicted[judged] == y[judged]).mean()), 4),
        "no_change_accuracy": round(float((naive == y)[1:].mean()), 4),
        "retrainings": len(life.trained_at) - 1,
        "accuracy_trained_once": round(float((once == y[MEMORY:]).mean()), 4),
        "published": PUBLISHED,
    }


@dataclass(frozen=True)
class _Trained:
    """An exported model, which predicts the positions of classes (n,)."""

    exported: Exported

    @classmethod
    def fit(cls, x: Floats, y: Floats) -> "_Trained":
        return cls(fit_exported(MODEL, MODEL.defaults, x, y))

    def predict(self, x: Floats) -> Floats:
        return self.exported.predict(x).argmax(1).astype(float)


def read_features() -> pl.DataFrame:
    """Makes the rows of the feature table from the file's half hours, as messages of the source.

    Raises ValueError where a message is rejected.
    """
    stream = pl.read_csv(real("elec2/elec.csv")).to_dicts()
    times = [BEGIN + number * HALF_HOUR for number in range(len(stream))]
    payloads = [
        json.dumps({"market": "nsw", "at": at.isoformat(), **half_hour}).encode()
        for at, half_hour in zip(times, stream, strict=True)
    ]
    events = as_bronze(MARKET, payloads)
    calendar = calendar_of(events["timestamp"], "UTC", "AU")
    silver = Plan(silver_table(PRICES)).run({PRICES.name: events, "calendar": calendar})
    return Plan(FEATURES).run({"prices": silver})
