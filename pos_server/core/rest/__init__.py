"""The REST API as data: what it can do, with which bodies, and what can go wrong.

    fields.py        what fields are made of, and the models that bodies, paths and queries build on
    problems.py      every `code` of a problem, with its status and its text
    endpoints.py     what an endpoint is
    admin.py …       the endpoints and the bodies of a role
    catalogue.py     the endpoints of all roles
    links.py         where an answer leads
    idempotency.py   what an `Idempotency-Key` stands for
    openapi.py       the document

The server binds endpoints to handlers (pos_server/api), pos_client calls them.
"""
