"""Simulators of the city's data sources, including their faults. Each simulator has the name of its domain."""
