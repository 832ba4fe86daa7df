"""Data alerts: what goes wrong with data becomes one alarm a cause, that people see, own, silence and close."""
