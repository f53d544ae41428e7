"""The `pos-server` command line."""
