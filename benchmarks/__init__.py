"""textcl versus other libraries, run in turns on one machine: `python -m benchmarks [NAME …]`; see docs/benchmarks.md.

The other scripts in this folder are run by their own names, such as `python -m benchmarks.views`.
"""
