"""The domain of vehicles, their speeds, and congestion."""
