"""Conditions that domains declare."""

from dataclasses import replace
from datetime import timedelta

import pytest

from city.alerts.conditions import Persistence, conditions, largest_first
from city.alerts.model import AlertError
from city.settings import Settings
from tests.city.alerts.test_condition_watch import HOT


def test_a_declaration_that_cannot_be_is_refused() -> None:
    with pytest.raises(AlertError, match="'hot': raised_by needs"):
        replace(HOT, raised_by=(Persistence(1, 3, 2),))
    with pytest.raises(AlertError, match="clear_below must not be above"):
        replace(HOT, clear_below=1.5)
    with pytest.raises(AlertError, match="calm_for must not be longer"):
        replace(HOT, calm_for=timedelta(hours=1))


def test_domains_are_discovered_and_name_each_kind_once(config: Settings) -> None:
    declared = conditions(config)
    assert {"equipment/anomaly", "equipment/remaining_life", "payments/fraud", "traffic/congestion"} <= {
        condition.name for condition in declared
    }
    assert all(condition.topic and condition.description and condition.type for condition in declared)


def test_contributions_are_the_largest_first_of_either_sign() -> None:
    assert list(largest_first({"a": 0.1, "b": -0.5, "c": None, "d": 0.4})) == ["b", "d", "a"]
    assert largest_first(None) == {}
