"""Pumps and motors: anomalies and remaining life."""
