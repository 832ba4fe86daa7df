"""The model of anomalies is derived from the declaration of a fleet: its inputs, its estimator and its messages."""

import polars as pl
import pytest

from city.contracts import ContractError
from city.models.anomaly import NormalRegion
from city.models.wandering import WanderingRegion
from city_assets.equipment.anomalies import anomaly_model
from city_assets.equipment.fleet import Fleet, Signal, Trailing

# The name of one signal begins with that of another.
PRESS = Fleet(
    name="press",
    signals=tuple(
        Signal(name=name, unit="bar", minimum=0, maximum=9, description="oil")
        for name in ("oil", "oil_spread", "oil_2")
    ),
    windows=(
        Trailing(name="long", readings=60, description="minute"),
        Trailing(name="now", readings=10, description="ten seconds"),
    ),
    spread_over="now",
)


def test_the_inputs_are_the_signals_over_the_shortest_window_and_the_context() -> None:
    model = anomaly_model(PRESS, "odd", "press_features", "gold/faults", "odd-presses", context=("oil_long",))
    assert model.inputs == ("oil_now", "oil_spread_now", "oil_2_now", "oil_long")
    assert model.where == "oil_2_now IS NOT NULL"
    assert isinstance(model.estimator(model.defaults), NormalRegion)


def test_of_signals_that_wander_the_spreads_are_inputs_without_relations() -> None:
    model = anomaly_model(PRESS, "odd", "press_features", "gold/faults", "odd-presses", wanders=True)
    assert model.inputs[3:] == ("oil_spread", "oil_spread_spread", "oil_2_spread")
    region = model.estimator(model.defaults)
    assert isinstance(region, WanderingRegion)
    assert (region.window, region.related) == (10, 3)


def test_a_message_has_the_contribution_of_each_signal() -> None:
    model = anomaly_model(PRESS, "odd", "press_features", "gold/faults", "odd-presses", wanders=True)
    shares = dict(zip(model.inputs, (0.1, 0.2, 0.3, 0.05, 0.15, 0.2), strict=True))
    assert model.stream is not None
    (message,) = model.stream.message(
        pl.DataFrame(
            {
                "timestamp": [0],
                "machine_id": ["press_1"],
                "output": [[1.5, 0.0, *shares.values()]],
                "prediction": ["anomaly"],
                "confidence": [0.9],
                "contributions": [shares],
            }
        )
    ).to_dicts()
    assert message["feature_contributions"] == pytest.approx({"oil": 0.15, "oil_spread": 0.35, "oil_2": 0.5})
    assert (message["anomaly_score"], message["threshold"], message["is_anomaly"]) == (1.5, 1.0, True)


def test_the_signal_of_a_feature_is_found_by_the_declaration() -> None:
    assert PRESS.signal_of("oil_2_spread") == "oil_2"
    with pytest.raises(ContractError, match="fleet 'press' has no feature 'power_now'"):
        PRESS.signal_of("power_now")
