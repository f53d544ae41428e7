"""Runs an embedded Postgres: its binaries, its data directory, its processes."""
