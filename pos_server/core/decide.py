"""The rules that decide what becomes of payments. `decide` is pure: rows and a time go in, outcomes come out.

A batch is decided in order, and each decision sees the ones before it: two payments of one wallet in one batch
cannot spend the same money, two scans of one code cannot both pass, a cancel finds the scan that came before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from . import payment_code
from .book import (
    Book,
    Changes,
    DeviceStatus,
    Entries,
    MerchantStatus,
    TerminalStatus,
    Till,
    Transfer,
    TransferKind,
    Wallet,
    WalletDevice,
)
from .device_keys import DeviceId, DeviceKind, Keyring
from .errors import ErrorCode
from .operations import (
    Cancel,
    Confirm,
    CreateRefund,
    Decided,
    Entry,
    Expire,
    Operation,
    Outcome,
    Refunded,
    Refused,
    Reject,
    Scan,
)
from .payment_code import CodeCheck
from .payments import DeclineCode, Payment, Refund, Status
from .rules import Risk, Rules, after_wrong_pin, is_pin_free, is_pin_locked, pin_tries_left, today, why_not


def decide(
    operations: Sequence[Operation], book: Book, keyring: Keyring, now_ms: int, rules: Rules, *, day_start_ms: int
) -> tuple[list[Outcome], Changes]:
    """Decide operations in order against `book`, at `now_ms`; `day_start_ms` is when the business day began.

    Both are Unix milliseconds. Returns one outcome per operation, in the same order, and all that has to be written for
    them. A scan's terminal must be in `book.tills`. Raises nothing for anything a customer or a till can do.
    """
    desk = _Desk(Entries(book), keyring, now_ms, rules, day_start_ms)
    return [desk.decide(operation) for operation in operations], desk.entries.changes


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the rules say of a new scan.

    The wallet is None until the code has proved that it comes from it, so nobody is told of a stranger's forgery.
    """

    decline: DeclineCode | None
    wallet: Wallet | None = None
    spent: WalletDevice | None = None
    needs_pin: bool = False


@dataclass(slots=True)
class _Desk:
    """One batch at work."""

    entries: Entries
    keyring: Keyring
    now_ms: int
    rules: Rules
    day_start_ms: int

    def decide(self, operation: Operation) -> Outcome:
        match operation:
            case Scan():
                return self._scan(operation)
            case Confirm():
                return self._confirm(operation)
            case Reject():
                return self._reject(operation)
            case Cancel():
                return self._cancel(operation)
            case CreateRefund():
                return self._refund(operation)
            case Expire():
                return self._expire(operation)

    # --- scan

    def _scan(self, scan: Scan) -> Outcome:
        stored = self.entries.book.payments.get(scan.payment_id)
        if stored is not None and not (stored.is_tombstone and stored.merchant_id == scan.merchant_id):
            if stored.fingerprint != scan.fingerprint:
                return Refused(scan, ErrorCode.ID_REUSED)
            return self._unchanged(scan, stored)
        verdict = self._judge(scan, is_canceled=stored is not None)
        order = (scan.merchant_id, scan.reference)
        occupant = self.entries.book.open_payments.get(order)
        named = verdict.decline in (DeclineCode.ALREADY_PAID, DeclineCode.ALREADY_PENDING)
        payment = Payment(
            payment_id=scan.payment_id,
            fingerprint=scan.fingerprint,
            terminal_number=scan.terminal_number,
            merchant_id=scan.merchant_id,
            wallet_number=verdict.wallet.number if verdict.wallet else None,
            reference=scan.reference,
            amount_minor=scan.amount_minor,
            currency=scan.currency,
            status=Status.PENDING if verdict.needs_pin else Status.DECLINED if verdict.decline else Status.APPROVED,
            decline_code=verdict.decline,
            paid_by=occupant.payment_id if occupant and named else None,
            version=stored.version + 1 if stored else 1,
            changed_at_ms=self.now_ms,
            approved_at_ms=None if verdict.decline or verdict.needs_pin else self.now_ms,
            expires_at_ms=self.now_ms + self.rules.confirmation_ms if verdict.needs_pin else None,
        )
        if verdict.spent is not None:
            self.entries.put_device(verdict.spent)
        if verdict.wallet is not None:
            # Also when nothing is charged: the version guards the spent code.
            self.entries.put_wallet(replace(verdict.wallet, version=verdict.wallet.version + 1))
        self.entries.put_payment(payment)
        if payment.status is Status.APPROVED:
            self._charge(payment, pin_free=True)
        return self._decided(scan, payment)

    def _judge(self, scan: Scan, *, is_canceled: bool) -> _Verdict:
        book = self.entries.book
        till = book.tills[scan.terminal_number]
        if till.terminal_status is not TerminalStatus.ACTIVE:
            return _Verdict(DeclineCode.TERMINAL_DISABLED)
        if till.merchant_status is not MerchantStatus.ACTIVE:
            return _Verdict(DeclineCode.MERCHANT_INACTIVE)
        code = payment_code.parse(scan.code)
        if code is None:
            return _Verdict(DeclineCode.CODE_MALFORMED)
        wallet = book.wallets.get(code.wallet_number)
        device = book.devices.get((code.wallet_number, code.slot))
        device_key = self._key_of(device)
        if wallet is None or device is None or device_key is None:
            return _Verdict(DeclineCode.CODE_INVALID)
        now_step = payment_code.step_at(self.now_ms / 1000)
        check, step = payment_code.check(code, device_key, now_step, self.rules.code_expired_steps)
        if check is CodeCheck.INVALID:
            return _Verdict(DeclineCode.CODE_INVALID)

        mark = payment_code.spent_mark(step, code.seq)
        spent = replace(device, spent_mark=max(mark, device.spent_mark))
        wallet = today(wallet, self.day_start_ms)
        decline: DeclineCode | None
        if check is CodeCheck.EXPIRED:
            decline = DeclineCode.CODE_EXPIRED
        elif mark <= device.spent_mark:
            decline = DeclineCode.CODE_USED
        else:
            decline = self._closed(scan, is_canceled) or why_not(
                wallet, scan.amount_minor, scan.currency, self.rules.limits_of(scan.currency)
            )
        if decline is not None:
            return _Verdict(decline, wallet, spent)
        risk = self.rules.risk(scan, wallet)
        if risk is Risk.REJECT:
            return _Verdict(DeclineCode.RISK_REJECTED, wallet, spent)
        needs_pin = (
            risk is Risk.ASK_PIN
            or scan.entry is Entry.TYPED
            or not is_pin_free(wallet, scan.amount_minor, self.rules.limits_of(scan.currency))
        )
        if needs_pin and is_pin_locked(wallet, self.now_ms):
            return _Verdict(DeclineCode.PIN_LOCKED, wallet, spent)
        return _Verdict(None, wallet, spent, needs_pin)

    def _closed(self, scan: Scan, is_canceled: bool) -> DeclineCode | None:
        """Why this order cannot be paid any more, or not now."""
        occupant = self.entries.book.open_payments.get((scan.merchant_id, scan.reference))
        if is_canceled or (occupant and occupant.status is Status.CANCELED):
            return DeclineCode.CANCELED
        if occupant is None:
            return None
        return DeclineCode.ALREADY_PENDING if occupant.status is Status.PENDING else DeclineCode.ALREADY_PAID

    def _key_of(self, device: WalletDevice | None) -> bytes | None:
        if device is None or device.status is not DeviceStatus.ACTIVE:
            return None
        wallet_device = DeviceId(DeviceKind.WALLET, device.wallet_number, device.slot)
        return self.keyring.device_key(device.kid, wallet_device, device.generation)

    # --- the PIN step

    def _confirm(self, confirm: Confirm) -> Outcome:
        payment = self._of_wallet(confirm.payment_id, confirm.wallet_number)
        if payment is None:
            return Refused(confirm, ErrorCode.PAYMENT_UNKNOWN)
        if payment.status is not Status.PENDING or payment.version != confirm.version:
            return self._unchanged(confirm, payment)
        if self._is_over(payment):
            return self._moved(confirm, payment, Status.EXPIRED)
        wallet = today(self.entries.book.wallets[confirm.wallet_number], self.day_start_ms)
        if is_pin_locked(wallet, self.now_ms):
            return self._moved(confirm, payment, Status.DECLINED, DeclineCode.PIN_LOCKED)
        if wallet.pin_generation != confirm.pin_generation:
            return Refused(confirm, ErrorCode.BUSY)  # the PIN was changed since it was checked
        if not confirm.pin_correct:
            return self._wrong_pin(confirm, payment, wallet)
        self.entries.put_wallet(replace(wallet, pin_failures=0, version=wallet.version + 1))
        limits = self.rules.limits_of(payment.currency)
        decline = self._till_closed(payment) or why_not(wallet, payment.amount_minor, payment.currency, limits)
        if decline is not None:
            return self._moved(confirm, payment, Status.DECLINED, decline)
        approved = replace(payment, approved_at_ms=self.now_ms)
        outcome = self._moved(confirm, approved, Status.APPROVED)
        self._charge(outcome.payment, pin_free=False)
        return replace(outcome, wallet=self.entries.book.wallets[confirm.wallet_number])

    def _wrong_pin(self, confirm: Confirm, payment: Payment, wallet: Wallet) -> Decided:
        wallet = after_wrong_pin(wallet, self.rules, self.now_ms)
        self.entries.put_wallet(wallet)
        payment = replace(payment, pin_failures=payment.pin_failures + 1)
        if is_pin_locked(wallet, self.now_ms):
            return self._moved(confirm, payment, Status.DECLINED, DeclineCode.PIN_LOCKED)
        if payment.pin_failures >= self.rules.pin_payment_failures_max:
            return self._moved(confirm, payment, Status.DECLINED, DeclineCode.PIN_WRONG)
        return self._moved(confirm, payment, Status.PENDING)

    def _till_closed(self, payment: Payment) -> DeclineCode | None:
        till = self.entries.book.tills[payment.terminal_number]
        if till.terminal_status is not TerminalStatus.ACTIVE:
            return DeclineCode.TERMINAL_DISABLED
        return None if till.merchant_status is MerchantStatus.ACTIVE else DeclineCode.MERCHANT_INACTIVE

    def _reject(self, reject: Reject) -> Outcome:
        payment = self._of_wallet(reject.payment_id, reject.wallet_number)
        if payment is None:
            return Refused(reject, ErrorCode.PAYMENT_UNKNOWN)
        if payment.status is not Status.PENDING:
            return self._unchanged(reject, payment)
        if self._is_over(payment):
            return self._moved(reject, payment, Status.EXPIRED)
        return self._moved(reject, payment, Status.DECLINED, DeclineCode.CUSTOMER_REJECTED)

    def _expire(self, expire: Expire) -> Outcome:
        payment = self.entries.book.payments.get(expire.payment_id)
        if payment is None:
            return Refused(expire, ErrorCode.PAYMENT_UNKNOWN)
        if payment.status is not Status.PENDING or not self._is_over(payment):
            return self._unchanged(expire, payment)
        return self._moved(expire, payment, Status.EXPIRED)

    def _is_over(self, payment: Payment) -> bool:
        return payment.expires_at_ms is not None and payment.expires_at_ms <= self.now_ms

    def _of_wallet(self, payment_id: UUID, wallet_number: int) -> Payment | None:
        payment = self.entries.book.payments.get(payment_id)
        return payment if payment is not None and payment.wallet_number == wallet_number else None

    # --- cancel and refund

    def _cancel(self, cancel: Cancel) -> Outcome:
        till = self.entries.book.tills[cancel.terminal_number]
        if till.terminal_status is not TerminalStatus.ACTIVE:
            return Refused(cancel, ErrorCode.TERMINAL_DISABLED)
        payment = self._to_cancel(cancel)
        if payment is None:
            return self._tombstone(cancel)
        if payment.merchant_id != cancel.merchant_id:
            return Refused(cancel, ErrorCode.ID_REUSED)
        if payment.status is Status.PENDING:
            return self._moved(cancel, payment, Status.CANCELED)
        if payment.status is not Status.APPROVED:
            return self._unchanged(cancel, payment)
        if payment.refunded_minor:
            return Refused(cancel, ErrorCode.ALREADY_REFUNDED)
        if self._age_ms(payment) > self.rules.cancel_window_ms:
            return Refused(cancel, ErrorCode.CANCEL_TOO_LATE)
        self._give_back(payment, TransferKind.CANCEL, payment.payment_id, payment.amount_minor)
        return self._moved(cancel, payment, Status.CANCELED)

    def _to_cancel(self, cancel: Cancel) -> Payment | None:
        book = self.entries.book
        if cancel.payment_id is not None:
            return book.payments.get(cancel.payment_id)
        occupant = book.open_payments.get((cancel.merchant_id, cancel.reference or ""))
        return book.payments[occupant.payment_id] if occupant else None

    def _tombstone(self, cancel: Cancel) -> Decided:
        """A payment that is canceled before it exists: what comes late finds it closed."""
        payment = Payment(
            payment_id=cancel.payment_id or cancel.tombstone_id,
            fingerprint=None,
            terminal_number=cancel.terminal_number,
            merchant_id=cancel.merchant_id,
            wallet_number=None,
            reference=cancel.reference,
            amount_minor=0,
            currency=cancel.currency,
            status=Status.CANCELED,
            decline_code=None,
            paid_by=None,
            version=1,
            changed_at_ms=self.now_ms,
        )
        self.entries.put_payment(payment)
        return self._decided(cancel, payment)

    def _refund(self, wish: CreateRefund) -> Outcome:
        book = self.entries.book
        payment = book.payments.get(wish.payment_id)
        stored = book.refunds.get(wish.refund_id)
        if stored is not None and (stored.payment_id, stored.merchant_id, stored.amount_minor) != (
            wish.payment_id,
            wish.merchant_id,
            wish.amount_minor,
        ):
            return Refused(wish, ErrorCode.ID_REUSED)
        if payment is None or payment.merchant_id != wish.merchant_id or payment.is_tombstone:
            return Refused(wish, ErrorCode.PAYMENT_UNKNOWN)
        if stored is not None:
            return self._refunded(wish, stored, payment, replayed=True)
        refusal = self._why_not_refund(wish, payment)
        if refusal is not None:
            return Refused(wish, refusal)
        refund = Refund(
            refund_id=wish.refund_id,
            payment_id=payment.payment_id,
            merchant_id=payment.merchant_id,
            terminal_number=wish.terminal_number,
            wallet_number=self._give_back(payment, TransferKind.REFUND, wish.refund_id, wish.amount_minor).number,
            amount_minor=wish.amount_minor,
            currency=payment.currency,
            created_at_ms=self.now_ms,
        )
        payment = replace(
            payment,
            refunded_minor=payment.refunded_minor + wish.amount_minor,
            refunds=payment.refunds + 1,
            version=payment.version + 1,
            changed_at_ms=self.now_ms,
        )
        self.entries.put_refund(refund)
        self.entries.put_payment(payment)
        return self._refunded(wish, refund, payment)

    def _why_not_refund(self, wish: CreateRefund, payment: Payment) -> ErrorCode | None:
        till = None if wish.terminal_number is None else self.entries.book.tills[wish.terminal_number]
        if till is not None and till.terminal_status is not TerminalStatus.ACTIVE:
            return ErrorCode.TERMINAL_DISABLED
        if payment.status is not Status.APPROVED:
            return ErrorCode.NOT_REFUNDABLE
        if self._age_ms(payment) > self.rules.refund_window_ms:
            return ErrorCode.REFUND_TOO_LATE
        if payment.refunds >= self.rules.refunds_max:
            return ErrorCode.TOO_MANY_REFUNDS
        return ErrorCode.REFUND_OVER_REST if wish.amount_minor > payment.refundable_minor else None

    def _refunded(self, wish: CreateRefund, refund: Refund, payment: Payment, *, replayed: bool = False) -> Refunded:
        book = self.entries.book
        till, wallet = book.tills[payment.terminal_number], book.wallets[refund.wallet_number]
        return Refunded(wish, refund, payment, till, wallet, replayed)

    # --- what they share

    def _charge(self, payment: Payment, *, pin_free: bool) -> None:
        """The money of an approved payment goes from the wallet to the merchant, and counts for the wallet's day."""
        wallet = self._wallet_of(payment)
        amount_minor = payment.amount_minor
        self.entries.put_wallet(
            replace(
                wallet,
                balance_minor=wallet.balance_minor - amount_minor,
                day_spent_minor=wallet.day_spent_minor + amount_minor,
                day_pin_free_minor=wallet.day_pin_free_minor + (amount_minor if pin_free else 0),
                day_pin_free_count=wallet.day_pin_free_count + (1 if pin_free else 0),
            )
        )
        merchant_account_id = self.entries.book.tills[payment.terminal_number].merchant_account_id
        self.entries.post(
            Transfer(
                kind=TransferKind.PAYMENT,
                source_id=payment.payment_id,
                debit_account_id=wallet.account_id,
                credit_account_id=merchant_account_id,
                amount_minor=amount_minor,
                currency=payment.currency,
                wallet_number=wallet.number,
            )
        )

    def _give_back(self, payment: Payment, kind: TransferKind, source_id: UUID, amount_minor: int) -> Wallet:
        """Money returns from the merchant to the wallet, whatever has become of the wallet since.

        A cancel on the day of the payment gives the day's allowance back too; a refund does not.
        """
        wallet = self._wallet_of(payment)
        day_spent_minor = wallet.day_spent_minor
        if kind is TransferKind.CANCEL and (payment.approved_at_ms or 0) >= wallet.day_start_ms:
            day_spent_minor = max(0, day_spent_minor - amount_minor)
        wallet = replace(
            wallet,
            balance_minor=wallet.balance_minor + amount_minor,
            day_spent_minor=day_spent_minor,
            version=wallet.version + 1,
        )
        self.entries.put_wallet(wallet)
        self.entries.post(
            Transfer(
                kind=kind,
                source_id=source_id,
                debit_account_id=self.entries.book.tills[payment.terminal_number].merchant_account_id,
                credit_account_id=wallet.account_id,
                amount_minor=amount_minor,
                currency=payment.currency,
                wallet_number=wallet.number,
            )
        )
        return wallet

    def _wallet_of(self, payment: Payment) -> Wallet:
        if payment.wallet_number is None:
            raise AssertionError(f"payment {payment.payment_id} moves money and has no wallet")
        return self.entries.book.wallets[payment.wallet_number]

    def _age_ms(self, payment: Payment) -> int:
        return self.now_ms - (payment.approved_at_ms or 0)

    def _moved(
        self,
        operation: Confirm | Reject | Cancel | Expire,
        payment: Payment,
        status: Status,
        decline: DeclineCode | None = None,
    ) -> Decided:
        """The next version of a payment."""
        payment = replace(
            payment,
            status=status,
            decline_code=decline,
            version=payment.version + 1,
            changed_at_ms=self.now_ms,
        )
        self.entries.put_payment(payment)
        return self._decided(operation, payment)

    def _unchanged(self, operation: Scan | Confirm | Reject | Cancel | Expire, payment: Payment) -> Decided:
        return replace(self._decided(operation, payment), replayed=True)

    def _decided(self, operation: Scan | Confirm | Reject | Cancel | Expire, payment: Payment) -> Decided:
        book = self.entries.book
        wallet = None if payment.wallet_number is None else book.wallets.get(payment.wallet_number)
        till: Till = book.tills[payment.terminal_number]
        tries_left = 0
        if payment.status is Status.PENDING and wallet is not None:
            tries_left = pin_tries_left(payment, wallet, self.rules, self.now_ms)
        return Decided(operation, payment, till, wallet, pin_tries_left=tries_left)
