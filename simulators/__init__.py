"""Sources that behave like the real ones, faults included. A simulator has the name of its domain."""
