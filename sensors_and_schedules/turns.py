"""Turns in Dagster's run queue."""

TURN = "city/takes_turns"
TAKES_TURNS = {TURN: "true", "dagster/max_runtime": "3600"}
"""The tags of a run that takes turns with the others that have them: dagster.yaml lets one of them run at a time.

These are the short runs that the city requests by itself. Each needs some hundred megabytes, so two at the same time
would decide how much memory a city needs. The longest is the training of one model, which searches for a minute. A run
that hangs is ended after an hour, because the others wait for it. The stream, builds of older days, the archive and
what people start take no turns: they may last minutes, and today's build does not wait for them.
"""
