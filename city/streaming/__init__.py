"""The hot path: Kafka to bronze exactly once, and from bronze to everything that is derived from it."""
