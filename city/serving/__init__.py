"""Predictions: validated, routed to a version, batched, answered and recorded."""
