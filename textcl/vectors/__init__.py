"""The vectors of a corpus on disk: how they are encoded, read and searched."""
