"""Finds and erases a person's data in every store."""
