"""Logs: the filter for uvicorn's reports, and the payment id of a failed device request."""

import asyncio
import logging
from typing import Any

import pytest
from structlog.testing import capture_logs

from pos_server.core.errors import CloseCode
from pos_server.core.protocol.client_messages import PaymentConfirm
from pos_server.core.protocol.server_messages import ServerMessage
from pos_server.gateway.conversation import _answer
from pos_server.telemetry.logs import _is_application_fault
from tests.support import new_id


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
    assert _is_application_fault(record) is logged


class Device:
    """A fake connection that keeps delivered messages and the close code."""

    def __init__(self) -> None:
        self.delivered: list[str] = []
        self.closed: CloseCode | None = None

    def deliver(self, text: str) -> None:
        self.delivered.append(text)

    def close(self, code: CloseCode, reason: str) -> None:
        self.closed = code


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("failure", "event"), [(OSError("gone"), "database_away"), (KeyError("a bug"), "request_failed")]
)
async def test_the_event_of_a_failed_request_has_the_payment_id_and_not_the_pin(failure: Exception, event: str) -> None:
    payment_id = new_id()
    message = PaymentConfirm(type="payment.confirm", message_id="m", payment_id=payment_id, version=1, pin="274951")

    async def work() -> ServerMessage | None:
        raise failure

    device: Any = Device()
    with capture_logs() as logs:
        await asyncio.create_task(_answer(work, message, device))
    assert [(log["event"], log["payment_id"]) for log in logs] == [(event, str(payment_id))]
    assert "274951" not in str(logs)
    assert (device.closed is None) == bool(device.delivered)
