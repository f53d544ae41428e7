"""`/v1/terminal`: tills scan codes here and receive the results."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

import orjson

from ..clock import now_ms
from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.errors import CloseCode, ConnectionClosing, ErrorCode
from ..core.payments.operations import Cancel, CreateRefund, Entry, Scan
from ..core.payments.payment import Payment, Purpose
from ..core.protocol.client_messages import (
    Authenticate,
    PaymentCancel,
    PaymentQuery,
    PaymentScan,
    PaymentsRecent,
    RefundCreate,
    Request,
    ShiftClose,
    ShiftOpen,
    ShiftQuery,
)
from ..core.protocol.codec import (
    encode,
    message_id_of_scan,
)
from ..core.protocol.notices import error_message, message_error, shift_notice, terminal_notice
from ..core.protocol.server_messages import (
    PaymentList,
    PaymentPending,
    ServerMessage,
    TerminalPaymentResult,
    TerminalReady,
)
from ..core.rate_limits import FailureLimit
from ..ledger import directory, history, shifts
from ..ledger.directory import TerminalRecord
from ..ledger.history import Cursor
from ..ledger.rows import plain_uuid
from ..limits import DeviceLimits
from .conversation import Work, refused
from .device import Admitted, Backend, DeviceEndpoint, ReplayPage, replay_page

# By name: an enum's own call takes ten times as long, and every scan needs both.
_ENTRIES = {str(entry): entry for entry in Entry}
_PURPOSES = {str(purpose): purpose for purpose in Purpose}
# The text before and after the `message_id` in the refusal of a scan. Made once: building an exception, a message and
# its text each time would be most of a refusal's cost.
_BUSY = encode(error_message(message_error(ErrorCode.BUSY, "?"))).split('"?"')


class TerminalEndpoint(DeviceEndpoint[TerminalRecord]):
    """Tills. `forged_codes` counts forged codes by terminal number; `new_id` makes the id of a tombstone."""

    kind = DeviceKind.TERMINAL

    def __init__(
        self, limits: DeviceLimits, backend: Backend, forged_codes: FailureLimit, *, new_id: Callable[[], UUID]
    ) -> None:
        super().__init__(limits, backend)
        self._forged_codes = forged_codes
        self._new_id = new_id

    async def admit(self, message: Authenticate, nonce: bytes) -> Admitted[TerminalRecord]:
        terminal = await directory.find_terminal(self._pool, message.id) if message.slot == 0 else None
        if terminal is None:
            raise ConnectionClosing(CloseCode.UNAUTHORIZED, "unknown device or wrong key")
        device = DeviceId(self.kind, message.id)
        self.check_mac(message, nonce, device, terminal.kid, terminal.generation)
        return self.admitted(message, device, terminal.generation, terminal)

    async def resume(
        self, message: Authenticate, admitted: Admitted[TerminalRecord]
    ) -> tuple[TerminalReady, Sequence[ServerMessage]]:
        time_ms = now_ms()
        page = ReplayPage((), time_ms, None)
        if message.since_ms is not None:
            page = await self.missed(
                message.id, admitted.language, self.replay_start(message.since_ms), self._limits.resume_payments_max
            )
        ready = TerminalReady(
            reply_to=message.message_id,
            server_time_ms=time_ms,
            resumed=page.next_cursor is None,
            terminal_number=message.id,
            merchant_name=admitted.record.merchant_name,
            store_name=admitted.record.store_name,
            currency=admitted.record.currency,
            shift_id=admitted.record.shift_id and plain_uuid(admitted.record.shift_id),
        )
        return ready, page.messages if ready.resumed else ()

    async def missed(self, number: int, language: str, after: Cursor, payments_max: int) -> ReplayPage:
        time_ms = now_ms()
        payments = await history.terminal_payments_after(self._pool, number, after, payments_max + 1)
        return replay_page(
            payments, payments_max, time_ms, [self._notice(payment, None, language) for payment in payments]
        )

    def refuse_early(self, text: str) -> str | None:
        # A refusal must not cost as much as a payment: at twice the load that the server can decide, parsing every
        # scan would take a third of its time.
        if not self._authorizer.is_full or self._authorizer.is_closed:
            return None
        message_id = message_id_of_scan(text)
        if message_id is None:
            return None
        self._authorizer.refuse_busy()
        return orjson.dumps(message_id).decode().join(_BUSY)

    def handle(self, message: Request, admitted: Admitted[TerminalRecord]) -> Work | None:
        match message:
            case PaymentScan():
                self._scan(message, admitted)
            case PaymentCancel():
                self._cancel(message, admitted)
            case RefundCreate():
                refund_request = CreateRefund(
                    refund_id=message.refund_id,
                    payment_id=message.payment_id,
                    merchant_id=admitted.record.merchant_id,
                    terminal_number=admitted.device.number,
                    amount_minor=message.amount_minor,
                )
                self.submit(refund_request, message)
            case PaymentQuery():
                return partial(self._query, message, admitted)
            case PaymentsRecent():
                return partial(self._recent, message, admitted)
            case ShiftOpen() | ShiftClose() | ShiftQuery():
                return partial(self._shift, message, admitted)
            case _:
                raise AssertionError(f"the session let {message.type} of a terminal through")
        return None

    def _scan(self, message: PaymentScan, admitted: Admitted[TerminalRecord]) -> None:
        number, terminal = admitted.device.number, admitted.record
        if message.currency != terminal.currency:
            raise refused(ErrorCode.WRONG_CURRENCY, message, field="currency")
        blocked_s = self._forged_codes.blocked_for_s(number, time.monotonic())
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
            entry=_ENTRIES[message.entry],
            purpose=_PURPOSES[message.purpose],
        )
        self.submit(scan, message)

    def _cancel(self, message: PaymentCancel, admitted: Admitted[TerminalRecord]) -> None:
        cancel = Cancel(
            terminal_number=admitted.device.number,
            merchant_id=admitted.record.merchant_id,
            currency=admitted.record.currency,
            payment_id=message.payment_id,
            reference=message.reference,
            tombstone_id=self._new_id(),
        )
        self.submit(cancel, message)

    async def _query(self, message: PaymentQuery, admitted: Admitted[TerminalRecord]) -> ServerMessage:
        merchant_id = admitted.record.merchant_id
        found = await history.find_payment(self._pool, merchant_id, message.payment_id, message.reference)
        if isinstance(found, ErrorCode):
            raise refused(found, message)
        return self._notice(found, message.message_id, admitted.language)

    async def _recent(self, message: PaymentsRecent, admitted: Admitted[TerminalRecord]) -> ServerMessage:
        payments = await history.terminal_recent(self._pool, admitted.device.number, message.limit)
        return PaymentList(
            reply_to=message.message_id,
            payments=tuple(self._notice(payment, None, admitted.language) for payment in payments),
        )

    async def _shift(
        self, message: ShiftOpen | ShiftClose | ShiftQuery, admitted: Admitted[TerminalRecord]
    ) -> ServerMessage:
        number, time_ms = admitted.device.number, now_ms()
        refusal: ErrorCode | None = None
        if self._authorizer.is_closed and not isinstance(message, ShiftQuery):
            refusal = ErrorCode.DRAINING
        elif isinstance(message, ShiftOpen):
            refusal = await shifts.open_shift(
                self._pool, message.shift_id, number, message.operator, message.opening_cash_minor, time_ms
            )
        elif isinstance(message, ShiftClose):
            refusal = await shifts.close_shift(
                self._pool, message.shift_id, number, message.counted_cash_minor, time_ms
            )
        if refusal is not None:
            raise refused(refusal, message)
        shift = await shifts.find_shift(self._pool, number, message.shift_id, time_ms)
        if shift is None:
            raise refused(ErrorCode.SHIFT_UNKNOWN, message)
        return shift_notice(shift, message.message_id, admitted.language)

    def _notice(self, payment: Payment, reply_to: str | None, language: str) -> TerminalPaymentResult | PaymentPending:
        return terminal_notice(payment, reply_to, language, wallet_online=self._publisher.wallet_online(payment))
