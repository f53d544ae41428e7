"""Logs, metrics and traces.

Payments wait for none of them. The engine fills in one `BatchRecord` per batch and passes it on when the batch is over;
metrics and traces are derived from it, after the outcomes were sent. A payment that is not traced therefore costs
nothing, and a failing collector of traces delays no payment.

Everything recorded here leaves the server, so it contains ids, outcomes and counts only: never keys, PINs, payment
codes, activation codes or message contents.

    logs.py      one JSON object per event on stderr, with the id of the request and of the payment
    metrics.py   Prometheus counters and histograms of the engine and of the outboxes
    traces.py    OpenTelemetry spans for a share of the payments
"""
