"""Metrics: pure functions of vectors and labels."""
