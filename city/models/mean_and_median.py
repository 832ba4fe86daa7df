"""The average of boosted trees for the mean and for the median. It can be exported to ONNX."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes
from skl2onnx.operator_converters.voting_regressor import convert_voting_regressor
from sklearn.ensemble import HistGradientBoostingRegressor, VotingRegressor

from city.arrays import Labels
from city.models.model import Parameters

SHARE_OF_INPUTS = 0.4
"""The share of the inputs that each split considers. The inputs are many and alike."""
WEIGHTS = (5, 4)
"""The weights of the mean and of the median.

Compared on METR-LA's training rows (the validation part of T-GCN's protocol, and the equally long period before it):
equal weights have a smaller absolute error there by 0.003 to 0.005 mph, and a larger squared error on the validation
part. 2:1 has larger errors of both kinds on the mean of both periods."""
_TREES, _LEAVES = 100, 31
"""What is grown where no parameter says so: scikit-learn's own defaults."""
ALL_TREES_ROWS = 280_000
"""The number of rows from which on all trees are grown. Chosen, as LEAST_SHARE, on METR-LA's training rows, and on
simulated rows of other days than those that `city bench city` holds out."""
LEAST_SHARE = 0.35
"""The share of the trees that few rows get."""


def trees_for(most: int, rows: int) -> int:
    """Returns the number of trees for so many rows: `most` from 280,000 rows on, and fewer in proportion below that.

    The trees of few rows soon learn their noise: further trees take time and do not predict better. The least is 35 %
    of `most`.
    """
    return max(1, round(most * min(1.0, max(LEAST_SHARE, rows / ALL_TREES_ROWS))))


class MeanAndMedianTrees(VotingRegressor):
    """Averages boosted trees for the mean and boosted trees for the median.

    The mean has the least squared error, and the median the least absolute error. The average is close to the best by
    both measures. A tree for the mean has half of the leaves, because a mean of few rows follows their extreme values,
    and a median does not. No rows are kept back to stop early by. They would be of the same hours as those that are
    learned from, and so would not stop it.
    """

    def __init__(self, parameters: Parameters) -> None:
        """`parameters` are those of the trees for the median, but for `max_iter`, see `trees_for`."""
        self.parameters = parameters
        super().__init__([], weights=np.array(WEIGHTS))

    def fit(self, x: NDArray[np.generic], y: Labels, /) -> Self:
        """Fits both on inputs (n, f) and values (n,)."""
        shared = {"max_iter": _TREES, "max_leaf_nodes": _LEAVES, "max_features": SHARE_OF_INPUTS, **self.parameters}
        shared |= {"early_stopping": False, "random_state": 0}
        shared["max_iter"] = trees_for(shared["max_iter"], len(x))
        half = {**shared, "max_leaf_nodes": max(2, shared["max_leaf_nodes"] // 2)}
        self.estimators = [
            ("mean", HistGradientBoostingRegressor(**half)),
            ("median", HistGradientBoostingRegressor(loss="absolute_error", **shared)),
        ]
        super().fit(x, y)
        return self


update_registered_converter(
    MeanAndMedianTrees, "CityMeanAndMedianTrees", calculate_linear_regressor_output_shapes, convert_voting_regressor
)
