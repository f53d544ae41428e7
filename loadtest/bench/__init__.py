"""The bench: throughput and latency of the authorization engine, relative to `pgbench` in the same run.

Absolute figures depend on the machine and the day, so every figure is also a ratio: to pgbench on the same Postgres, or
to another run that alternates with it.

`__main__` runs the `scenarios`. `load` holds the servers under test and runs the load generator, a process of its own
(`generator`) with all tills and wallets connected (`crowd`). `report` writes an HTML page.
"""
