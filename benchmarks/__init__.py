"""textcl beside its peers, in turns on one machine: `python -m benchmarks [NAME …]`; see docs/benchmarks.md.

`benchmarks.views` and `benchmarks.contrastive_tension_ranks` have no peer and are run by their names.
"""
