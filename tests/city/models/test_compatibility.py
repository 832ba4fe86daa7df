"""A version of another declaration's inputs is known as such: it cannot serve, and is trained anew."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from city.models.compatibility import INPUTS, name_inputs, takes_inputs
from city.models.exported import OtherInputs
from city.models.fitting import fit_exported
from city.models.model import Model
from city.models.retraining import Signs, reason
from city.models.version import Version
from city_assets.traffic.models import speed_model

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def version(tags: dict[str, str]) -> Version:
    return Version("traffic_speed_15", 1, "run", (), {"trained_at": "2026-05-04T08:00:00+00:00", **tags}, 0)


def model(*inputs: str) -> Model:
    return replace(speed_model(15), inputs=inputs, change_of=inputs[0])


def unread() -> bytes:
    raise AssertionError("the tag says it")


def test_the_tag_of_a_version_decides() -> None:
    declared = model("speed_mean", "speed_lag_1")
    assert takes_inputs(declared, version({INPUTS: name_inputs(declared)}), unread)
    assert not takes_inputs(model("speed_mean", "speed_lag_2"), version({INPUTS: name_inputs(declared)}), unread)


def test_the_width_of_a_version_without_a_tag_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = model("speed_mean", "speed_lag_1")
    chance = np.random.default_rng(0)
    x = chance.normal(size=(500, 2)).astype(np.float32)
    contents: list[bytes] = []

    def keep(declared: Model, content: bytes) -> None:
        contents.append(content)

    with monkeypatch.context() as patched:
        patched.setattr("city.models.fitting.Exported", keep)
        fit_exported(declared, {"max_iter": 5}, x, x[:, 0] + x[:, 1].astype(float))
    assert takes_inputs(declared, version({}), lambda: contents[0])
    assert not takes_inputs(model("speed_mean"), version({}), lambda: contents[0])
    assert issubclass(OtherInputs, ValueError)


def test_a_model_whose_champion_takes_other_inputs_is_trained() -> None:
    why = reason(speed_model(15), Signs(version({}), 10, 10, takes_inputs=False), NOW)
    assert why is not None
    assert why.startswith("other inputs")
    assert reason(speed_model(15), Signs(version({}), 10, 10), NOW) is None
