"""Training, judging and registering models: what every model needs, whatever it predicts."""
