"""Turns in Dagster's run queue."""

TURN = "city/takes_turns"
TAKES_TURNS = {TURN: "true"}
"""The tags of a run that takes turns with the others that have them: dagster.yaml lets one of them run at a time.

These are the short runs that the city requests by itself. Each needs some hundred megabytes for seconds, so that two at
the same time would decide how much memory a city needs. The stream, builds of older days, the archive and what people
start have no turn: they may take minutes, and today's build does not wait for them.
"""
