"""The sinks of the stream: what is derived from bronze, each at a position of its own."""
