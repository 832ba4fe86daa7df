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


def test_fewer_groups_make_wider_intervals() -> None:
    predicted, actual, group = sample(100, rows=20)
    few, some = (
        np.mean([np.mean(intervals(predicted, actual, (group + shift) % count).widths) for shift in range(10)])
        for count in (6, 25)
    )
    assert few > some > np.mean(intervals(predicted, actual).widths)
    assert np.isfinite(intervals(predicted, actual, np.zeros(len(group))).widths).all()


def test_a_group_has_the_same_weight_however_many_rows_it_has() -> None:
    """One machine of forty reports a hundred times as often, and its predictions err by ten times as much."""
    chance = np.random.default_rng(4)
    group = np.repeat(np.arange(40), [4_000, *[40] * 39])
    predicted = chance.uniform(0, 1, len(group))
    actual = predicted + np.where(group == 0, 10.0, 1.0) * chance.normal(size=len(group))
    by_group, by_row = intervals(predicted, actual, group), intervals(predicted, actual)
    assert max(by_group.widths) < 4 < min(by_row.widths)


def test_what_cannot_carry_intervals_is_named() -> None:
    predicted, actual, group = sample(5)
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


def fleet(chance: np.random.Generator, machines: int, worn: float, rows: int = 400) -> tuple[np.ndarray, ...]:
    """Machines of whose rows the share `worn` is near to failing, with errors that a machine's rows share in part."""
    machine = np.repeat(np.arange(machines), rows)
    is_worn = chance.uniform(0, 1, len(machine)) < worn
    predicted = np.where(is_worn, chance.uniform(0, 0.9, len(machine)), 1.0)
    errors = 0.7 * chance.normal(0, 0.1, machines)[machine] + 0.7 * chance.normal(0, 0.1, len(machine))
    return predicted, predicted + np.where(is_worn, errors, chance.laplace(0, 0.001, len(machine))), machine


@pytest.mark.parametrize("machines", [20, 100])
@pytest.mark.parametrize("worn", [0.05, 0.9])
def test_groups_are_covered_at_each_level_whichever_levels_the_service_has(machines: int, worn: float) -> None:
    """The rows to calibrate on are of whole lives. Machines in service may be seen near to failing more often."""
    chance = np.random.default_rng(2)
    around = [intervals(*fleet(chance, machines, 0.1)) for _ in range(20)]
    predicted, actual, _ = fleet(chance, 200, worn)

    def coverage(each: Intervals) -> float:
        low, high = each.around(predicted)
        return float(((low <= actual) & (actual <= high)).mean())

    assert 0.88 < np.mean([coverage(each) for each in around]) < 0.96
