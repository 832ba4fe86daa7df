"""A person's data: found in every store, and erased."""
