"""The embedded servers of a laptop, and the supervisor that keeps them and all else running."""
