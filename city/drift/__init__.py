"""Whether data, predictions or errors are still what they were: pure statistics of two samples."""

from city.drift.losses import decayed
from city.drift.monitor import Monitor, Thresholds

__all__ = ["Monitor", "Thresholds", "decayed"]
