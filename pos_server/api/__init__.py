"""HTTP: the handlers of the REST API, and the pages for operators and tools.

`core/rest` describes each endpoint; a class here has a handler for each endpoint of a role. `support/dispatch.py`
authenticates and validates a request before its handler runs, so a handler receives models and returns a resource.
Changes of payments go to the engine (`support/engine_client.py`), like those of devices. Other changes are a
transaction of their own, with the `Idempotency-Key` stored in the same commit. Failures are problem details (RFC 9457)
with a stable `code`.

    admin.py, issuer.py, merchant_*.py   handlers by role
    activations.py                       activation of devices, without an API key
    health.py, metrics.py                probes; the metrics page with its gauges (counters: telemetry/metrics.py)
    openapi.py, asyncapi.py, docs.py     documents and their viewers
    support/                             shared by all handlers
"""
