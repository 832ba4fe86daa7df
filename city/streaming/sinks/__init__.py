"""The sinks of the stream. Each derives data from bronze, at a position of its own."""
