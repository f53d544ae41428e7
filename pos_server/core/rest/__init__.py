"""The REST API as data: what it can do, with which bodies, and what can go wrong.

    fields.py        what fields are made of, and the models that bodies, paths and queries build on
    problems.py      every `code` of a problem, with its status and its text
    operations.py    what an operation is
    admin.py …       the operations and the bodies of a role
    catalogue.py     the operations of all roles
    links.py         where an answer leads
    idempotency.py   what an `Idempotency-Key` stands for
    openapi.py       the document

The server binds operations to handlers (pos_server/api), pos_client calls them.
"""
