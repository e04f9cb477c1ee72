"""A corpus as vectors on disk: encoded, read, searched."""
