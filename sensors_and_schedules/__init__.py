"""Sensors, schedules, and the instance classes of Dagster that start and watch runs."""
