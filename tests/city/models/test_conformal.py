"""Intervals hold what they promise, level by level, and say what they cannot be made from."""

import numpy as np
import pytest

from city.models.conformal import Intervals, intervals

CHANCE = np.random.default_rng(0)


def sample(groups: int, rows: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions whose error grows with them and is shared, in part, by a group's rows."""
    group = np.repeat(np.arange(groups), rows)
    predicted = CHANCE.uniform(0, 100, groups * rows)
    shared = CHANCE.normal(size=groups)[group]
    return predicted, predicted + (shared + CHANCE.normal(size=len(group))) * predicted / 10, group


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_new_groups_are_covered_as_promised_and_wide_where_errors_are(coverage: float) -> None:
    around = intervals(*sample(300), coverage=coverage)
    predicted, actual, _ = sample(2000)
    low, high = around.around(predicted)
    assert abs(((actual >= low) & (actual <= high)).mean() - coverage) < 0.025
    width = high - low
    assert width[predicted > 90].mean() > 5 * width[predicted < 10].mean()


def test_few_groups_make_wider_intervals_than_as_many_single_rows() -> None:
    predicted, actual, group = sample(12)
    grouped, single = intervals(predicted, actual, group), intervals(predicted, actual)
    assert np.mean(grouped.widths) > np.mean(single.widths)


def test_single_rows_of_few_machines_make_wider_intervals_than_of_many() -> None:
    predicted, actual, _ = sample(100)
    widths = [intervals(predicted, actual, sources=count).widths for count in (10, 100)]
    assert np.mean(widths[0]) > np.mean(widths[1]) > np.mean(intervals(predicted, actual).widths)
    assert intervals(predicted, actual, sources=10).coverage == 0.9
    assert np.isfinite(intervals(predicted, actual, sources=1).widths).all()


def test_what_cannot_carry_intervals_is_named() -> None:
    predicted, actual, group = sample(5)
    with pytest.raises(ValueError, match="5 groups cannot carry"):
        intervals(predicted, actual, group, coverage=0.9)
    with pytest.raises(ValueError, match="3 rows are too few"):
        intervals(predicted[:3], actual[:3])
    with pytest.raises(ValueError, match="finite"):
        intervals(np.where(group == 1, np.nan, predicted), actual)


def test_a_level_without_any_error_keeps_a_width() -> None:
    predicted = np.repeat([1.0, 2.0], 50)
    around = intervals(predicted, predicted + np.repeat([0.0, 1.0], 50))
    assert min(around.widths) > 0


def test_intervals_hold_where_predictions_are_rare() -> None:
    """Of a fleet of which nearly all is far from failing, and said to be so, the others keep their intervals."""
    chance = np.random.default_rng(1)

    def rare(rows: int) -> tuple[np.ndarray, np.ndarray]:
        worn = chance.uniform(0, 1, rows) < 0.05
        predicted = np.where(worn, chance.uniform(0, 0.9, rows), 1.0)
        return predicted, predicted + np.where(worn, chance.normal(0, 0.1, rows), 0.0)

    around = intervals(*rare(8_000))
    predicted, actual = rare(40_000)
    low, high = around.around(predicted)
    near = predicted < 0.9
    assert 0.85 < ((low <= actual) & (actual <= high))[near].mean() < 0.95
    assert np.max((high - low)[~near]) < 0.05


def test_intervals_by_group_do_not_hold_where_predictions_are_rare() -> None:
    """Why trainings calibrate by row: a fleet of twenty machines, of which nearly all rows are far from failing."""
    chance = np.random.default_rng(2)

    def fleet(machines: int, rows: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        machine = np.repeat(np.arange(machines), rows)
        worn = chance.uniform(0, 1, len(machine)) < 0.05
        predicted = np.where(worn, chance.uniform(0, 0.9, len(machine)), 1.0)
        errors = 0.7 * chance.normal(0, 0.1, machines)[machine] + 0.7 * chance.normal(0, 0.1, len(machine))
        return predicted, predicted + np.where(worn, errors, 0.0), machine

    predicted, actual, machine = fleet(20)
    by_row, by_group = intervals(predicted, actual), intervals(predicted, actual, machine)
    predicted, actual, _ = fleet(500)
    near = predicted < 0.9

    def coverage(around: Intervals) -> float:
        low, high = around.around(predicted)
        return float(((low <= actual) & (actual <= high))[near].mean())

    assert coverage(by_row) > 0.8
    assert coverage(by_group) < 0.5
