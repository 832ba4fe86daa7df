"""Vehicles, speeds, congestion."""
