"""Timings of textcl beside its peers; run one with `python -m benchmarks.NAME`."""
