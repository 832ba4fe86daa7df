"""Waiting between attempts, as the hot path's modules import it."""

from city.stack.backoff import Backoff, Stopped

__all__ = ["Backoff", "Stopped"]
