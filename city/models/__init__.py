"""Trains, judges and registers models of every kind, whatever they predict."""
