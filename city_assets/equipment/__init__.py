"""The domain of pumps and motors: anomalies and remaining life."""
