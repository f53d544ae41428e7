"""Single measurements behind design decisions, each a program of its own.

`docs/benchmarks.md` and `docs/architecture.md` quote their figures. Run one as `python -m loadtest.experiments.idle`.
"""
