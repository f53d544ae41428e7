"""The WebSocket protocol: messages, a connection's states, and who is notified of what. Pure."""
