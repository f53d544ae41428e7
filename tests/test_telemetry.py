"""What of uvicorn's reports reaches the log: faults of ours, and nothing that peers do."""

import logging

import pytest

from pos_server.telemetry import _is_our_fault


@pytest.mark.parametrize(
    ("level", "message", "logged"),
    [
        (logging.INFO, '%s - "WebSocket %s" [accepted]', False),
        (logging.WARNING, "Invalid HTTP request received.", False),
        (logging.ERROR, "Invalid UTF-8 sequence received from client.", False),
        (logging.ERROR, "opening handshake failed", False),
        (logging.ERROR, "Exception in ASGI application\n", True),
        (logging.CRITICAL, "anything", True),
    ],
)
def test_only_faults_of_the_application_are_logged(level: int, message: str, logged: bool) -> None:
    record = logging.LogRecord("uvicorn.error", level, __file__, 1, message, None, None)
    assert _is_our_fault(record) is logged
