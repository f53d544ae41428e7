"""The REST API as methods, one per endpoint."""
