"""The resources of the asset graph. A test can replace each by a double with the same methods."""
