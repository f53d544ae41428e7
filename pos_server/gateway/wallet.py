"""`/v1/wallet`: customers' phones receive their payments here, confirm them, and read their history."""

import math
from collections.abc import Sequence
from functools import partial

from ..clock import now_ms
from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.credentials.pins import PinHash, is_weak
from ..core.errors import CloseCode, ConnectionClosing, ErrorCode
from ..core.payments.operations import Confirm, Reject
from ..core.payments.rules import Rules, pin_tries_left
from ..core.payments.snapshot import Wallet
from ..core.protocol.client_messages import (
    Authenticate,
    History,
    PaymentConfirm,
    PaymentReject,
    PinSet,
    Request,
)
from ..core.protocol.notices import Notice, Recipient, wallet_notice
from ..core.protocol.server_messages import (
    ConfirmationRequired,
    HistoryPage,
    PinChanged,
    ServerMessage,
    WalletPaymentResult,
    WalletReady,
)
from ..core.texts import text
from ..ledger import directory, history
from ..ledger import pins as pin_rows
from ..ledger.directory import WalletDeviceRecord
from ..ledger.history import Cursor, WalletPayment
from ..limits import DeviceLimits
from .conversation import Work, refused
from .device import Admitted, Backend, DeviceEndpoint, ReplayPage, replay_page
from .pin_hasher import PinHasher, PinHasherBusy


class WalletEndpoint(DeviceEndpoint[WalletDeviceRecord]):
    """Wallet devices. Payment codes are made on the phone; a device's messages concern its own wallet only."""

    kind = DeviceKind.WALLET

    def __init__(self, limits: DeviceLimits, backend: Backend, rules: Rules, pin_hasher: PinHasher) -> None:
        super().__init__(limits, backend)
        self._rules = rules
        self._pin_hasher = pin_hasher

    async def admit(self, message: Authenticate, nonce: bytes) -> Admitted[WalletDeviceRecord]:
        record = await directory.find_wallet_device(self._pool, message.id, message.slot)
        if record is None:
            raise ConnectionClosing(CloseCode.UNAUTHORIZED, "unknown device or wrong key")
        device = DeviceId(self.kind, message.id, message.slot)
        self.check_mac(message, nonce, device, record.kid, record.generation)
        return self.admitted(message, device, record.generation, record)

    async def resume(
        self, message: Authenticate, admitted: Admitted[WalletDeviceRecord]
    ) -> tuple[WalletReady, Sequence[ServerMessage]]:
        time_ms = now_ms()
        size = self._limits.resume_payments_max
        payments: Sequence[WalletPayment] = ()
        if message.since_ms is not None:
            start = self.replay_start(message.since_ms)
            payments = await history.wallet_payments_after(self._pool, message.id, start, size + 1)
        resumed = len(payments) <= size
        # Payments that wait for the PIN are sent in any case.
        pending = await history.wallet_pending(self._pool, message.id, size)
        missed = list(payments) if resumed else []
        missed_keys = {shown.payment.key for shown in missed}
        missed += [waiting for waiting in pending if waiting.payment.key not in missed_keys]
        # Read after the payments: a balance must never be older than the payments it is sent with.
        wallet = await self._wallet(message.id)
        ready = WalletReady(
            reply_to=message.message_id,
            server_time_ms=time_ms,
            resumed=resumed,
            wallet_number=message.id,
            slot=message.slot,
            currency=admitted.record.currency,
            balance_minor=wallet.balance_minor,
            pin_set=wallet.pin_set,
            status=wallet.status.value,
        )
        return ready, [self._notice(payment, wallet, admitted.language) for payment in missed]

    async def missed(self, number: int, language: str, after: Cursor, payments_max: int) -> ReplayPage:
        time_ms = now_ms()
        payments = await history.wallet_payments_after(self._pool, number, after, payments_max + 1)
        wallet = await self._wallet(number)  # after the payments, as in `resume`
        messages = [self._notice(payment, wallet, language) for payment in payments]
        return replay_page([shown.payment for shown in payments], payments_max, time_ms, messages)

    def handle(self, message: Request, admitted: Admitted[WalletDeviceRecord]) -> Work | None:
        match message:
            case PaymentConfirm():
                return partial(self._confirm, message, admitted.device)
            case PaymentReject():
                return partial(self._reject, message, admitted.device)
            case PinSet():
                return partial(self._set_pin, message, admitted)
            case History():
                return partial(self._history, message, admitted)
            case _:
                raise AssertionError(f"the session let {message.type} of a wallet through")

    async def _confirm(self, message: PaymentConfirm, device: DeviceId) -> None:
        stored = await pin_rows.find_pin(self._pool, device.number)
        if stored.hash is None:
            raise refused(ErrorCode.PIN_NOT_SET, message)
        merchant_id = await self._merchant_of(message, device.number)
        is_correct = False
        # With a locked PIN, or a payment that has moved on, the decision needs no check.
        if stored.locked_until_ms <= now_ms() and await pin_rows.is_pin_awaited(
            self._pool, device.number, merchant_id, message.payment_id, message.version
        ):
            is_correct = await self._check(message, device.number, message.pin, stored.hash)
        confirm = Confirm(
            payment_id=message.payment_id,
            merchant_id=merchant_id,
            wallet_number=device.number,
            slot=device.slot,
            version=message.version,
            pin_correct=is_correct,
            pin_generation=stored.generation,
        )
        self.submit(confirm, message)

    async def _reject(self, message: PaymentReject, device: DeviceId) -> None:
        merchant_id = await self._merchant_of(message, device.number)
        self.submit(Reject(message.payment_id, merchant_id, device.number, device.slot), message)

    async def _merchant_of(self, message: PaymentConfirm | PaymentReject, number: int) -> int:
        """Return the merchant that the wallet names, else the only merchant of its payment with this id."""
        if message.merchant_id is not None:
            return message.merchant_id
        merchants = await history.merchants_of_wallet_payment(self._pool, number, message.payment_id)
        if not merchants:
            raise refused(ErrorCode.PAYMENT_UNKNOWN, message)
        if len(merchants) > 1:
            raise refused(ErrorCode.BAD_FIELD, message, field="merchant_id")
        return merchants[0]

    async def _check(self, message: Request, number: int, pin: str, stored: PinHash) -> bool:
        try:
            return await self._pin_hasher.is_correct(number, pin, stored)
        except PinHasherBusy:
            raise refused(ErrorCode.BUSY, message) from None

    async def _set_pin(self, message: PinSet, admitted: Admitted[WalletDeviceRecord]) -> ServerMessage:
        """Return the answer to the device; the wallet's other devices are notified."""
        device = admitted.device
        if is_weak(message.new_pin):
            raise refused(ErrorCode.PIN_TOO_WEAK, message, field="new_pin")
        await self._change_pin(message, device.number)
        # Also for a repeat: the first request may have been cut off between its commit and this line.
        others = Recipient(DeviceKind.WALLET, device.number, not_slot=device.slot)
        self._publisher.notify(Notice(others, lambda language: _pin_changed(None, language)))
        return _pin_changed(message.message_id, admitted.language)

    async def _change_pin(self, message: PinSet, number: int) -> None:
        """Change the PIN, unless this request has done so before. Raises MessageError.

        No answer depends on whether the new PIN equals the old one: that would help somebody who guesses.
        """
        stored = await pin_rows.find_pin(self._pool, number)
        if stored.request_id == message.request_id:
            if stored.request_done:
                return
            raise refused(ErrorCode.PIN_WRONG, message, field="old_pin")
        if stored.hash is not None:
            wait_ms = stored.locked_until_ms - now_ms()
            if wait_ms > 0:
                raise refused(ErrorCode.PIN_LOCKED, message, retry_after_s=math.ceil(wait_ms / 1000))
            if message.old_pin is None:
                raise refused(ErrorCode.PIN_WRONG, message, field="old_pin")
            if not await self._check(message, number, message.old_pin, stored.hash):
                await pin_rows.count_wrong_pin(
                    self._pool,
                    number,
                    stored.generation,
                    self._rules.pin_failures_max,
                    now_ms() + self._rules.pin_lock_ms,
                    message.request_id,
                )
                raise refused(ErrorCode.PIN_WRONG, message, field="old_pin")
        try:
            new = await self._pin_hasher.hash(number, message.new_pin)
        except PinHasherBusy:
            raise refused(ErrorCode.BUSY, message) from None
        if not await pin_rows.set_pin(self._pool, number, stored.generation, new, message.request_id):
            raise refused(ErrorCode.BUSY, message)  # another request was faster

    async def _history(self, message: History, admitted: Admitted[WalletDeviceRecord]) -> ServerMessage:
        number = admitted.device.number
        after = None if message.cursor is None else Cursor.parse(message.cursor)
        payments = await history.wallet_history(self._pool, number, after, message.limit + 1)
        wallet = await self._wallet(number)
        page, more = payments[: message.limit], len(payments) > message.limit
        last = page[-1].payment if page else None
        return HistoryPage(
            reply_to=message.message_id,
            payments=tuple(self._notice(payment, wallet, admitted.language) for payment in page),
            next_cursor=Cursor.of(last).text if more and last else None,
        )

    async def _wallet(self, number: int) -> Wallet:
        wallet = await history.find_wallet(self._pool, number)
        if wallet is None:
            raise AssertionError(f"wallet {number} authenticated and does not exist")
        return wallet

    def _notice(
        self, shown: WalletPayment, wallet: Wallet, language: str
    ) -> WalletPaymentResult | ConfirmationRequired:
        tries_left = pin_tries_left(shown.payment, wallet, self._rules, now_ms())
        return wallet_notice(shown.payment, shown.merchant_name, shown.store_name, wallet, tries_left, None, language)


def _pin_changed(reply_to: str | None, language: str) -> PinChanged:
    return PinChanged(reply_to=reply_to, text=text(language, "customer.pin_changed"))
