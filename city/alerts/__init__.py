"""Data alerts: each cause of a problem with data is one alarm, which people can see, assign, silence and close."""
