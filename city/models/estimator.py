"""The interface of the estimators that models are fitted with: scikit-learn's, which has no types of its own."""

from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats


class Estimator(Protocol):
    """Learns outcomes (n,) from rows (n, inputs), and predicts them."""

    def fit(self, x: NDArray[np.generic], y: NDArray[np.generic], /) -> Self:
        """Fits on rows `x` (n, inputs) with the outcomes `y` (n,). Returns itself."""
        ...

    def predict(self, x: NDArray[np.generic], /) -> Floats:
        """Predicts for rows `x` (n, inputs): values (n,), or several for each row (n, outputs)."""
        ...


class Classifier(Estimator, Protocol):
    """An estimator that predicts the probabilities of classes."""

    @property
    def classes_(self) -> NDArray[np.generic]:
        """The classes that occurred among the outcomes (classes,), ascending."""
        ...

    def predict_proba(self, x: NDArray[np.generic], /) -> Floats:
        """Predicts the probabilities (n, classes) for rows `x` (n, inputs)."""
        ...
