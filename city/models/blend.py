"""The average of boosted trees and small neural networks, for regressions of a slow wear.

The two err in different places: trees follow thresholds, networks sum what many inputs show a little of. The networks
differ by where they start, and their average has less error than one. The estimator accepts NaN and can be exported to
ONNX.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from city.models.boosting import space
from city.models.estimator import Estimator
from city.models.model import Parameters

if TYPE_CHECKING:
    from optuna import Trial

_LAYERS = (64, 32)
_NETWORKS = 3
_LEARNING_RATE = 0.0015
"""Half as much again as Adam's usual rate, so that a network needs fewer passes over the rows."""
_NETWORK = ("alpha", "epochs")
"""The parameters of the networks. The others are those of the trees."""


def trees_and_networks(parameters: Parameters) -> Estimator:
    """Creates the estimator.

    A network makes `epochs` passes over the rows, with the weight `alpha` of the L2 penalty. It replaces a missing
    input by the mean of the input.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor, VotingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def network(seed: int) -> Estimator:
        layers = MLPRegressor(
            hidden_layer_sizes=_LAYERS,
            learning_rate_init=_LEARNING_RATE,
            alpha=parameters["alpha"],
            max_iter=parameters["epochs"],
            random_state=seed,
        )
        imputed: Estimator = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), layers)
        return imputed

    tree_parameters = {name: value for name, value in parameters.items() if name not in _NETWORK}
    trees = HistGradientBoostingRegressor(random_state=0, max_features=0.3, **tree_parameters)
    return VotingRegressor([("trees", trees), *((f"network_{n}", network(n)) for n in range(_NETWORKS))])


def blend_space(leaves: tuple[int, int], leaf_rows: tuple[int, int]) -> Callable[["Trial"], Parameters]:
    """Returns the search space of `trees_and_networks` (see `city.models.boosting.space`)."""
    draw_trees = space(leaves, leaf_rows)

    def draw(trial: "Trial") -> Parameters:
        return {
            **draw_trees(trial),
            "alpha": trial.suggest_float("alpha", 0.01, 1, log=True),
            "epochs": trial.suggest_int("epochs", 20, 40, step=10),
        }

    return draw
