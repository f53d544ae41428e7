"""The REST API as data: endpoints, request and response bodies, and problems.

Each endpoint is described once: method, path, role, bodies and possible responses. Everything else follows from that
description. The server binds each endpoint to a handler and validates requests before the handler runs
(`pos_server/api`); `pos_client` calls the endpoints with the same models; the OpenAPI document and the tests of all
endpoints are derived from them.

    fields.py        field types, and the base models of bodies, paths and queries
    problems.py      problem codes with their HTTP status and text
    endpoints.py     the description of an endpoint
    admin.py, issuer.py, merchant_*.py    the endpoints and bodies of a role
    catalogue.py     the endpoints of all roles
    links.py         links from a response to other endpoints
    idempotency.py   values derived from an `Idempotency-Key`
    openapi.py       the OpenAPI document
"""
