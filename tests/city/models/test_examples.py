"""Rows to learn from: labels of later only, a split by time, and what cannot be learned from is named."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.models.examples import check_parts, check_rows, inputs, label_rows, labels, split
from city.models.labels import KNOWN, LABEL, NAIVE
from city.models.model import ModelError, model_of, models
from city_assets.equipment.models import LIFE
from city_assets.traffic.models import CONGESTION, MODELS
from tests.city.models.rows import END, traffic

SPEED = MODELS[-1]
ROWS = traffic(hours=6, cells=4)


def test_a_label_is_the_same_cells_speed_so_much_later() -> None:
    labelled = label_rows(SPEED, ROWS)
    assert labelled.height > 600
    later = {(cell, at): speed for cell, at, speed in ROWS.select("cell", "as_of", "speed_mean").iter_rows()}
    for cell, at, label, now in labelled.select("cell", "as_of", LABEL, NAIVE).head(200).iter_rows():
        assert label in [later[cell, at + timedelta(minutes=m)] for m in (14, 16)]
        assert now == later[cell, at]
    assert labelled["as_of"].max() < ROWS["as_of"].max()
    assert label_rows(CONGESTION, ROWS)[LABEL].is_in(CONGESTION.label.classes).all()


@settings(max_examples=25, deadline=None)
@given(gap=st.integers(1, 40), ahead=st.integers(2, 30))
def test_whatever_is_missing_no_label_is_of_its_own_time_or_before(gap: int, ahead: int) -> None:
    model = replace(SPEED, label=replace(SPEED.label, after=timedelta(minutes=ahead)))
    thin = ROWS.filter((pl.int_range(pl.len()) * 7919) % (gap + 1) == 0).with_columns(
        speed_mean=pl.col("as_of").dt.epoch("s").cast(pl.Float64)
    )
    distance = label_rows(model, thin).select(pl.col(LABEL) - pl.col(NAIVE)).to_series()
    assert ((distance > 0) & ((distance - ahead * 60).abs() <= 120)).all()


def test_no_label_of_a_stretch_is_known_in_the_next() -> None:
    parts = split(SPEED, label_rows(SPEED, ROWS))
    ahead = SPEED.label.ahead
    assert parts.train["as_of"].max() + ahead < parts.validation["as_of"].min()  # type: ignore[operator]
    assert parts.validation["as_of"].max() + ahead < parts.held_out["as_of"].min()  # type: ignore[operator]
    with pytest.raises(
        ModelError, match="leave nothing for train, because labels are known up to 0:17:00 after their rows"
    ):
        split(SPEED, label_rows(SPEED, ROWS).head(40))


def test_a_protocol_gives_the_time_from_which_rows_are_held_out() -> None:
    labelled = label_rows(SPEED, ROWS)
    border = labelled["as_of"][labelled.height // 2]
    parts = split(SPEED, labelled, held_out_from=border)
    assert parts.held_out.height == labelled.filter(pl.col("as_of") >= border).height
    assert parts.validation[KNOWN].max() < border  # type: ignore[operator]
    assert parts.train[KNOWN].max() < parts.validation["as_of"].min()  # type: ignore[operator]
    whole = split(SPEED, labelled, validation=0, held_out_from=border)
    assert whole.validation.is_empty()
    assert whole.train.height == labelled.filter(pl.col(KNOWN) < border).height


def test_what_is_missing_is_not_a_number() -> None:
    labelled = label_rows(SPEED, ROWS).head(4)
    assert inputs(SPEED, labelled).shape == (4, len(SPEED.inputs))
    assert pl.Series(inputs(SPEED, labelled)[:, SPEED.inputs.index("speed_lag_3")]).is_nan().all()
    assert labels(CONGESTION, label_rows(CONGESTION, ROWS)).max() < 3


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (ROWS.head(300), "are too few, it needs 500; let the stream run"),
        (ROWS.with_columns(as_of=pl.col("as_of") + timedelta(days=9)), "rows are of the future"),
        (ROWS.with_columns(speed_lag_1=pl.lit(float("inf"))), "infinite values in speed_lag_1"),
        (ROWS.with_columns(speed_mean=pl.lit(3.0)), "one class only"),
    ],
)
def test_what_cannot_be_learned_from_is_named(rows: pl.DataFrame, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        check_rows(CONGESTION, label_rows(CONGESTION, rows), END)


def test_labels_that_are_no_numbers_or_no_classes_are_named() -> None:
    with pytest.raises(ModelError, match="is constant"):
        check_rows(SPEED, label_rows(SPEED, ROWS.with_columns(speed_mean=pl.lit(3.0))), END)
    with pytest.raises(ModelError, match="not always finite"):
        check_rows(SPEED, label_rows(SPEED, ROWS.with_columns(speed_mean=pl.lit(float("nan")))), END)
    other = replace(CONGESTION, label=replace(CONGESTION.label, classes=("low", "medium")))
    with pytest.raises(ModelError, match=r"unknown classes \['high'\]"):
        check_rows(other, label_rows(other, ROWS), END)


@pytest.mark.parametrize(("begin", "end"), [(0.0, 0.6), (0.9, 1.0)])
def test_lives_that_are_all_at_the_cap_in_a_part_are_not_enough(begin: float, end: float) -> None:
    count = 1_000
    share = pl.int_range(count, eager=True) / count
    rows = pl.DataFrame(
        {
            "timestamp": [END + timedelta(minutes=n) for n in range(count)],
            "machine_id": [f"pump_{n % 7}" for n in range(count)],
        }
    ).with_columns(
        pl.when(share.is_between(begin, end)).then(share).otherwise(1.0).alias(LABEL),
        pl.col("timestamp").alias(KNOWN),
    )
    part = "validation" if begin == 0 else "train"
    with pytest.raises(ModelError, match=f"'machine_life': for {part}, 0 of .* another outcome than 1.0; it needs 10"):
        check_parts(LIFE, rows)
    check_parts(LIFE, rows.with_columns(share.alias(LABEL)))


def test_declarations_are_checked_and_found() -> None:
    for model in models().values():
        model.check()
    with pytest.raises(ModelError, match="has no moon"):
        replace(SPEED, inputs=("moon",)).check()
    with pytest.raises(ModelError, match="two models are called"):
        models([SPEED, SPEED])
    with pytest.raises(ModelError, match="known: .*traffic_congestion"):
        model_of("moon")
    assert model_of("traffic_speed_5") is models()["traffic_speed_5"]
    assert model_of("traffic_speed_5").label.ahead < model_of("traffic_speed_15").label.ahead
