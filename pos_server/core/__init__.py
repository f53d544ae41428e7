"""The rules of the payment system: decisions, credentials, reports, wire messages and the REST API as data.

The core is pure. It does no I/O, reads no clock and draws no random number; the caller passes rows, the time and
random bytes in, and receives plain values. Each rule can therefore be tested in microseconds with literal input and
exact output, a batch of payments is decided without waiting for anything, and clients share the code without a server.

    credentials/   device keys, payment codes, activation codes, API keys, PINs
    payments/      what becomes of a payment: the decisions over a batch
    texts/         what cashiers and customers read, one module per language
    accounting/    shifts, settlement, seals
    protocol/      the WebSocket messages
    rest/          the REST API as data
    codes, errors, money, rate_limits, hidden_fields: shared by all of them

Import-linter enforces both the purity and the order of the rooms (`pyproject.toml`, `[tool.importlinter]`).
"""
