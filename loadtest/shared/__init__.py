"""Parts shared by all load tests.

- A server under measurement, with a Postgres of its own: `process`; pgbench on the same Postgres: `pgbench`.
- Data: `seed` and `sales_history` fill a database by SQL; `opening` opens a shop through the REST API.
- Devices: `codes`, `messages`, and two WebSocket clients, `session` (asyncio) and `gevent_websocket`.
- Measurements: `clock`, `histogram`, `metrics` (the server's `/metrics`), `machine` (CPU and memory).
- `html_report` has the style and the plots of the reports.
"""
