"""REST endpoints. Errors are problem+json (RFC 9457) with a stable `code`."""
