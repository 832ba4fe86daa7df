"""The hot path: copies Kafka to bronze exactly once, and feeds everything that is derived from bronze."""
