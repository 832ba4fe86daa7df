"""Detects drift of data, predictions and errors: pure statistics of two samples."""

from city.drift.losses import measure_loss_growth
from city.drift.monitor import Monitor, Thresholds

__all__ = ["Monitor", "Thresholds", "measure_loss_growth"]
