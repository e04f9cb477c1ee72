"""Flags, recipes, runs, and comparisons of runs."""
