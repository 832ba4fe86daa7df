"""A measure sees values, not their sign or how they are stored."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from city.arrays import Floats
from city.drift import Monitor
from city.drift.measures import NUMERIC, Measurement, chi_square, correlations

ROWS = 2_000
ZEROS = np.zeros(ROWS)
MOSTLY_ZEROS = np.where(np.arange(ROWS) % 5 < 4, 0.0, np.linspace(1, 9, ROWS))
BINNED = ("psi", "kl", "js")
measure = pytest.mark.parametrize("measure", NUMERIC.values(), ids=list(NUMERIC))

# Few distinct values, so that ties, atoms and constants are common; multiples of an eighth are exact in every dtype.
values = st.integers(-40, 40).map(lambda eighths: eighths / 8) | st.just(float("nan"))
examples = settings(max_examples=60, deadline=None, derandomize=True)
samples = arrays(np.float64, st.integers(1, 60), elements=values)


def as_tuple(measured: Measurement) -> tuple[float, float, float]:
    return measured.statistic, measured.p_value, measured.effect


@measure
@examples
@given(reference=samples, current=samples)
def test_a_mirrored_sample_has_the_same_drift(
    measure: Callable[[Floats, Floats], Measurement], reference: Floats, current: Floats
) -> None:
    mirrored = measure(-reference, -current)
    assert as_tuple(mirrored) == pytest.approx(as_tuple(measure(reference, current)), nan_ok=False)


@examples
@given(reference=samples, current=samples)
def test_mirrored_categories_have_the_same_drift(reference: Floats, current: Floats) -> None:
    assert as_tuple(chi_square(-reference, -current)) == pytest.approx(as_tuple(chi_square(reference, current)))


@examples
@given(st.data())
def test_mirrored_features_have_the_same_correlations(data: st.DataObject) -> None:
    reference, current = (data.draw(arrays(np.float64, (20, 2), elements=values)) for _ in range(2))
    with np.errstate(invalid="ignore", divide="ignore"):  # of a constant feature
        was, mirrored = correlations(reference, current), correlations(-reference, -current)
    np.testing.assert_allclose(mirrored, was, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.int8, object])
@examples
@given(whole=arrays(np.int8, st.integers(1, 60), elements=st.integers(-5, 5)), current=samples)
def test_how_a_sample_is_stored_does_not_matter(dtype: type, whole: np.ndarray, current: Floats) -> None:
    reference = whole.astype(np.float64)
    for measure in [chi_square] if dtype is object else [*NUMERIC.values(), chi_square]:
        assert as_tuple(measure(reference.astype(dtype), current)) == as_tuple(measure(reference, current))
        assert as_tuple(measure(current, reference.astype(dtype))) == as_tuple(measure(current, reference))


@measure
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_values_of_another_precision_are_equal(
    measure: Callable[[Floats, Floats], Measurement], dtype: type
) -> None:
    tenths = np.arange(ROWS) % 7 / 10
    assert measure(tenths, tenths.astype(dtype)).effect == pytest.approx(0, abs=1e-12)
    assert measure(np.full(9, 0.1), np.full(9, 0.1, dtype)).p_value == 1
    rows = Monitor(pl.DataFrame({"x": tenths})).compare(pl.DataFrame({"x": tenths.astype(dtype)}))
    assert rows["effect"].to_list() == pytest.approx([0.0] * rows.height, abs=1e-12)


@measure
@pytest.mark.parametrize("moved", [-5.0, 5.0])
@pytest.mark.parametrize("reference", [ZEROS, MOSTLY_ZEROS], ids=["all", "80 %"])
def test_zeros_that_become_another_value_are_drift(
    measure: Callable[[Floats, Floats], Measurement], reference: Floats, moved: float
) -> None:
    measurement = measure(reference, np.where(reference == 0, moved, reference))
    assert measurement.p_value < 1e-6
    assert measurement.effect > 0.3


@pytest.mark.parametrize("name", BINNED)
def test_zeros_that_become_positive_or_negative_are_the_same_drift(name: str) -> None:
    up, down = (NUMERIC[name](ZEROS, np.full(ROWS, moved)).effect for moved in (5.0, -5.0))
    assert up == down > 0.6  # JS is at most log 2


def test_numbers_are_categories_by_value() -> None:
    whole = np.array([1, 2] * 500)
    same: list[np.ndarray] = [whole.astype(float), whole.astype(np.float32), whole.astype(object), whole.astype(str)]
    for current in same:
        assert chi_square(whole, current) == Measurement(0.0, 1.0, 0.0)
    assert chi_square(np.array([True, False] * 9), np.array([1, 0] * 9)).effect == 0
    assert chi_square(np.array([0.1, 0.2] * 9), np.array([0.1, 0.2] * 9, np.float32)).effect == 0
    assert chi_square(whole, whole + 0.5).effect == 1


def test_a_missing_category_is_one_whatever_marks_it() -> None:
    marked = [np.array([1, missing] * 50, object) for missing in (None, float("nan"), np.nan)]
    for current in [*marked, np.array([1.0, np.nan] * 50)]:
        assert chi_square(marked[0], current).effect == 0
    assert chi_square(marked[0], np.array([1, "None"] * 50, object)).effect > 0
