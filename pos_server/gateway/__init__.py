"""WebSocket endpoints: one module per kind of device, and what they share."""
