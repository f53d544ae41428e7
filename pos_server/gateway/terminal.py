"""`/v1/terminal`: tills scan codes here and hear what became of them."""

import math
import time

import asyncpg

from ..authorizer import Authorizer, QueueFull
from ..connections import Connections
from ..core.device_keys import DeviceId, DeviceKind, Keyring
from ..core.errors import CloseCode, ConnectionClosing, ErrorCode, MessageError
from ..core.lockout import FailureLimit
from ..core.messages import Authenticate, PaymentScan, TerminalReady
from ..core.notices import ERROR_TEXTS
from ..core.payments import Scan
from ..ledger import directory
from ..settings import Settings
from .device import DeviceEndpoint, now_ms


class TerminalEndpoint(DeviceEndpoint[directory.TerminalRecord]):
    """`bad_codes` counts forged codes by terminal number; whoever publishes decisions records them."""

    kind = DeviceKind.TERMINAL

    def __init__(
        self,
        settings: Settings,
        keyring: Keyring,
        connections: Connections,
        pool: asyncpg.Pool,
        authorizer: Authorizer,
        bad_codes: FailureLimit,
    ) -> None:
        super().__init__(settings, keyring, connections)
        self._pool = pool
        self._authorizer = authorizer
        self._bad_codes = bad_codes

    async def admit(self, message: Authenticate, nonce: bytes) -> tuple[TerminalReady, directory.TerminalRecord]:
        terminal = await directory.find_terminal(self._pool, message.id) if message.slot == 0 else None
        if terminal is None:
            raise ConnectionClosing(CloseCode.UNAUTHORIZED, "unknown device or wrong key")
        self.check_mac(message, nonce, DeviceId(self.kind, message.id), terminal.kid, terminal.generation)
        ready = TerminalReady(
            reply_to=message.message_id,
            server_time_ms=now_ms(),
            terminal_number=message.id,
            merchant_name=terminal.merchant_name,
            store_name=terminal.store_name,
            currency=terminal.currency,
        )
        return ready, terminal

    def handle(self, message: PaymentScan, device: DeviceId, terminal: directory.TerminalRecord) -> None:
        if message.currency != terminal.currency:
            raise _refused(ErrorCode.WRONG_CURRENCY, message, field="currency")
        blocked_s = self._bad_codes.blocked_for_s(device.number, time.monotonic())
        if blocked_s:
            raise _refused(ErrorCode.TOO_MANY_BAD_CODES, message, retry_after_s=math.ceil(blocked_s))
        scan = Scan(
            payment_id=message.payment_id,
            terminal_number=device.number,
            merchant_id=terminal.merchant_id,
            reference=message.reference,
            amount_minor=message.amount_minor,
            currency=message.currency,
            code=message.code,
        )
        try:
            self._authorizer.submit(scan, message.message_id)
        except QueueFull:
            raise _refused(ErrorCode.BUSY, message) from None


def _refused(
    code: ErrorCode, message: PaymentScan, *, field: str | None = None, retry_after_s: int | None = None
) -> MessageError:
    return MessageError(code, ERROR_TEXTS[code], field=field, reply_to=message.message_id, retry_after_s=retry_after_s)
