"""Shared parts of the REST handlers.

A request passes `dispatch` (key, rate limit, role, path, query, headers, body), which builds an `ApiCall` for the
handler. The handler returns a `Reply`, or raises a `Problem` that becomes the response. Objects are created through
`idempotent_create`; payments change through `engine_client`.

    dispatch.py, authentication.py, error_responses.py   a request's way, and its failures
    bodies.py, times.py, languages.py, etags.py, pages.py, problems.py   parts of requests and responses
    idempotent_create.py, engine_client.py, activation_codes.py   what handlers share
"""
