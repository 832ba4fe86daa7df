"""The embedded servers of a laptop, and the supervisor that runs all parts of the platform."""
