"""The answers of a model, as they are recorded."""

import numpy as np
import pytest

from city.models.exported import Calibration
from city.models.model import Model
from city.models.predictions import answers
from city_assets.equipment.models import ANOMALIES
from city_assets.traffic.models import CONGESTION, MODELS


@pytest.mark.parametrize("model", [MODELS[-1], CONGESTION, ANOMALIES], ids=lambda model: str(model.kind))
def test_a_day_without_rows_has_no_answers(model: Model) -> None:
    assert answers(model, Calibration(), np.empty((0, max(2, len(model.label.classes))))).is_empty()
