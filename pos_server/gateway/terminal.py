"""`/v1/terminal`: tills scan codes here and hear what became of them."""

import math
import time
from collections.abc import Sequence

import asyncpg

from ..admission import Admission
from ..authorizer import Authorizer, QueueFull
from ..connections import Connections
from ..core.device_keys import DeviceId, DeviceKind, Keyring
from ..core.errors import CloseCode, ConnectionClosing, ErrorCode
from ..core.lockout import FailureLimit
from ..core.messages import Authenticate, PaymentScan, ServerMessage, TerminalReady
from ..core.notices import terminal_notice
from ..core.payments import Scan
from ..ledger import directory
from ..ledger.directory import TerminalRecord
from ..ledger.ledger import terminal_payments_since
from ..settings import Settings
from .device import Admitted, DeviceEndpoint, now_ms, refused


class TerminalEndpoint(DeviceEndpoint[TerminalRecord]):
    """`bad_codes` counts forged codes by terminal number; whoever publishes decisions records them."""

    kind = DeviceKind.TERMINAL

    def __init__(
        self,
        settings: Settings,
        keyring: Keyring,
        admission: Admission,
        connections: Connections,
        pool: asyncpg.Pool,
        authorizer: Authorizer,
        bad_codes: FailureLimit,
    ) -> None:
        super().__init__(settings, keyring, admission, connections)
        self._pool = pool
        self._authorizer = authorizer
        self._bad_codes = bad_codes

    async def admit(self, message: Authenticate, nonce: bytes) -> Admitted[TerminalRecord]:
        terminal = await directory.find_terminal(self._pool, message.id) if message.slot == 0 else None
        if terminal is None:
            raise ConnectionClosing(CloseCode.UNAUTHORIZED, "unknown device or wrong key")
        device = DeviceId(self.kind, message.id)
        self.check_mac(message, nonce, device, terminal.kid, terminal.generation)
        return Admitted(device, terminal.generation, terminal)

    async def resume(
        self, message: Authenticate, admitted: Admitted[TerminalRecord]
    ) -> tuple[TerminalReady, Sequence[ServerMessage]]:
        time_ms, missed, resumed = now_ms(), list[ServerMessage](), True
        if message.since_ms is not None:
            since_ms = message.since_ms - int(self._settings.resume_overlap_s * 1000)
            payments_max = self._settings.resume_payments_max
            payments = await terminal_payments_since(self._pool, message.id, since_ms, payments_max + 1)
            resumed = len(payments) <= payments_max
            if resumed:
                missed = [terminal_notice(payment, None) for payment in payments]
        ready = TerminalReady(
            reply_to=message.message_id,
            server_time_ms=time_ms,
            resumed=resumed,
            terminal_number=message.id,
            merchant_name=admitted.record.merchant_name,
            store_name=admitted.record.store_name,
            currency=admitted.record.currency,
        )
        return ready, missed

    def handle(self, message: PaymentScan, admitted: Admitted[TerminalRecord]) -> None:
        number, terminal = admitted.device.number, admitted.record
        if self._admission.draining:
            raise refused(ErrorCode.DRAINING, message)
        if message.currency != terminal.currency:
            raise refused(ErrorCode.WRONG_CURRENCY, message, field="currency")
        blocked_s = self._bad_codes.blocked_for_s(number, time.monotonic())
        if blocked_s:
            raise refused(ErrorCode.TOO_MANY_BAD_CODES, message, retry_after_s=math.ceil(blocked_s))
        scan = Scan(
            payment_id=message.payment_id,
            terminal_number=number,
            merchant_id=terminal.merchant_id,
            reference=message.reference,
            amount_minor=message.amount_minor,
            currency=message.currency,
            code=message.code,
        )
        try:
            self._authorizer.submit(scan, message.message_id)
        except QueueFull:
            raise refused(ErrorCode.BUSY, message) from None
