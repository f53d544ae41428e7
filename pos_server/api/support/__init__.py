"""Shared parts of the REST handlers.

A request passes `dispatch` (key, rate limit, role, path, query, headers, body), which builds an `ApiCall` for the
handler. The handler returns a `Reply`, or raises a `Problem` that becomes the response. Objects are created through
`idempotent_create`; payments change through `engine_client`.
"""
