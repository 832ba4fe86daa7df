"""The average of boosted trees and a small neural network, for regressions of a slow wear.

The two err in different places: trees follow thresholds, the network sums what many inputs show a little of. It accepts
NaN and can be exported to ONNX.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from city.models.boosting import space
from city.models.estimator import Estimator
from city.models.model import Parameters

if TYPE_CHECKING:
    from optuna import Trial

_LAYERS = (64, 32)
_NETWORK = ("alpha", "epochs")
"""The parameters of the network. The others are those of the trees."""


def trees_and_network(parameters: Parameters) -> Estimator:
    """Creates the estimator.

    The network has `epochs` passes over the rows, and the weight `alpha` of the L2 penalty. A missing input is for it
    the mean of the rows that have the input.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor, VotingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    of_trees = {name: value for name, value in parameters.items() if name not in _NETWORK}
    trees = HistGradientBoostingRegressor(random_state=0, max_features=0.3, **of_trees)
    network = MLPRegressor(
        hidden_layer_sizes=_LAYERS, alpha=parameters["alpha"], max_iter=parameters["epochs"], random_state=0
    )
    imputed = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), network)
    return VotingRegressor([("trees", trees), ("network", imputed)])


def blend_space(leaves: tuple[int, int], leaf_rows: tuple[int, int]) -> Callable[["Trial"], Parameters]:
    """Returns the search space of `trees_and_network` (see `city.models.boosting.space`)."""
    draw_trees = space(leaves, leaf_rows)

    def draw(trial: "Trial") -> Parameters:
        return {
            **draw_trees(trial),
            "alpha": trial.suggest_float("alpha", 0.01, 1, log=True),
            "epochs": trial.suggest_int("epochs", 20, 60, step=10),
        }

    return draw
