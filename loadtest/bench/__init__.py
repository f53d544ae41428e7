"""Benchmarks the engine against `pgbench` on the same Postgres, in the same run."""
