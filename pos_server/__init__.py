"""A self-hosted, real-time point-of-sale payment backend. Start at `pos_server.app`, or at docs/architecture.md."""
