"""Payments at a steady rate while an operator settles, audits, seals and closes shifts.

`__main__` alternates quiet phases with phases in which one of the `jobs` runs. `arrivals` is a process of its own that
offers the payments. `figures` compares the latencies of each job with the quiet phases next to it.
"""
