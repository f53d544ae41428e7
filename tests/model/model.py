"""A second implementation of the payment rules: one request at a time, plain dicts, no rows, no batches, no HMAC.

It is written from docs/payments.md and the protocol, not from the server's code. It stores nothing that follows from
its payments: the sum that a wallet spent today is computed from its payments of today.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from uuid import UUID

from tests.model import limits
from tests.model.records import Answer, Code, Device, Key, Payment, Terminal, Wallet


@dataclass
class Model:
    wallets: dict[int, Wallet]
    devices: dict[tuple[int, int], Device]
    terminals: dict[int, Terminal]
    fees: dict[int, tuple[int, int]] = field(default_factory=dict)
    inactive_merchants: set[int] = field(default_factory=set)
    # By merchant and id: two merchants may use the same id.
    payments: dict[Key, Payment] = field(default_factory=dict)
    refunds: dict[Key, tuple[UUID, int]] = field(default_factory=dict)
    now: int = 0

    # --- requests

    def scan(
        self,
        payment_id: UUID,
        terminal: int,
        reference: str,
        amount: int,
        currency: str,
        code: Code,
        typed: bool,
        purpose: str,
    ) -> Answer:
        merchant = self.terminals[terminal].merchant
        body = (terminal, reference, amount, currency, code.text, typed, purpose)
        earlier = self.payments.get((merchant, payment_id))
        if earlier is not None:
            # A scan after a cancel by its id is declined; after anything else the id is taken.
            late = earlier.body is None and earlier.reference is None
            if not late:
                return self._replay(earlier) if earlier.body == body else Answer("id_reused")
        payment = Payment(
            payment_id, merchant, reference, body, amount, currency, "declined", purpose, terminal=terminal,
            version=1 if earlier is None else 2,
        )  # fmt: skip
        decline = self._decline_of_code(terminal, code)
        if decline in (None, "code_expired", "code_used") and code.device is not None:
            payment.wallet = code.device[0]
            device = self.devices[code.device]
            device.last_code = max(device.last_code, (code.step, code.seq))
        if decline is None:
            wallet = self.wallets[code.device[0]] if code.device else None
            assert wallet is not None
            decline = self._decline_of_order(payment, earlier) or self._decline_of_amount(wallet, payment)
            if decline is None and amount == limits.REJECTED_AMOUNT:
                decline = "risk_rejected"
            if decline is None:
                needs_pin = (
                    amount == limits.ASKED_AMOUNT
                    or {
                        "sale": typed or not self._is_pin_free(wallet, amount, currency),
                        "top_up": False,
                        "withdrawal": True,
                    }[purpose]
                )
                if needs_pin and wallet.locked_until > self.now:
                    decline = "pin_locked"
                elif needs_pin:
                    payment.status, payment.expires = "pending", self.now + limits.CONFIRMATION
                else:
                    payment.status, payment.approved = "approved", self.now
                    payment.without_pin = purpose == "sale"
                    self._move(payment, 1)
        payment.decline = decline
        self.payments[merchant, payment_id] = payment
        return self._current(payment)

    def move_cash(
        self,
        payment_id: UUID,
        merchant: int,
        wallet_number: int,
        reference: str,
        amount: int,
        currency: str,
        purpose: str,
    ) -> Answer:
        """Move cash through the API, without a code or a PIN."""
        body = ("cash", merchant, wallet_number, reference, amount, currency, purpose)
        earlier = self.payments.get((merchant, payment_id))
        if earlier is not None:
            late = earlier.body is None and earlier.reference is None
            if not late:
                return self._replay(earlier) if earlier.body == body else Answer("id_reused")
        wallet = self.wallets.get(wallet_number)
        if wallet is None:
            return Answer("wallet_unknown")
        payment = Payment(
            payment_id, merchant, reference, body, amount, currency, "declined", purpose, wallet=wallet_number,
            version=1 if earlier is None else 2,
        )  # fmt: skip
        if merchant in self.inactive_merchants:
            payment.decline = "merchant_inactive"
        else:
            payment.decline = self._decline_of_order(payment, earlier) or self._decline_of_amount(wallet, payment)
        if payment.decline is None:
            payment.status, payment.approved = "approved", self.now
            self._move(payment, 1)
        self.payments[merchant, payment_id] = payment
        return self._current(payment)

    def confirm(
        self, payment_id: UUID, merchant: int, wallet_number: int, version: int, correct: bool, generation: int
    ) -> Answer:
        payment = self._of_wallet(payment_id, merchant, wallet_number)
        if payment is None:
            return Answer("payment_unknown")
        if payment.status != "pending" or payment.version != version:
            return self._replay(payment)
        wallet = self.wallets[wallet_number]
        if payment.expires <= self.now:
            return self._become(payment, "expired")
        if wallet.locked_until > self.now:
            return self._become(payment, "declined", "pin_locked")
        if generation != wallet.pin_generation:
            return Answer("busy")
        if not correct:
            payment.wrong_pins += 1
            self.count_wrong_pin(wallet_number)
            if wallet.locked_until > self.now:
                return self._become(payment, "declined", "pin_locked")
            if payment.wrong_pins == limits.WRONG_PINS_OF_A_PAYMENT:
                return self._become(payment, "declined", "pin_wrong")
            return self._become(payment, "pending")
        wallet.wrong_pins = 0
        assert payment.terminal is not None, "a payment through the API is never pending"
        decline = self._decline_of_till(payment.terminal) or self._decline_of_amount(wallet, payment)
        if decline is not None:
            return self._become(payment, "declined", decline)
        self._move(payment, 1)
        payment.approved = self.now
        return self._become(payment, "approved")

    def reject(self, payment_id: UUID, merchant: int, wallet_number: int) -> Answer:
        payment = self._of_wallet(payment_id, merchant, wallet_number)
        if payment is None:
            return Answer("payment_unknown")
        if payment.status != "pending":
            return self._replay(payment)
        if payment.expires <= self.now:
            return self._become(payment, "expired")
        return self._become(payment, "declined", "customer_rejected")

    def cancel(self, terminal: int, payment_id: UUID | None, reference: str | None, tombstone_id: UUID) -> Answer:
        merchant = self.terminals[terminal].merchant
        if not self.terminals[terminal].active:
            return Answer("terminal_disabled")
        if payment_id is None:
            payment = self.occupant(merchant, reference or "")
        else:
            payment = self.payments.get((merchant, payment_id))
        if payment is None:
            new_id = payment_id or tombstone_id
            payment = Payment(new_id, merchant, reference, None, 0, "", "canceled", terminal=terminal)
            self.payments[merchant, new_id] = payment
            return self._current(payment)
        if payment.status == "pending":
            return self._become(payment, "canceled")
        if payment.status != "approved":
            return self._replay(payment)
        if payment.refunds:
            return Answer("already_refunded")
        if self.now > payment.approved + limits.CANCEL_WINDOW:
            return Answer("cancel_too_late")
        if payment.purpose == "top_up" and self.wallets[payment.wallet].balance < payment.amount:
            return Answer("funds_spent")
        self._move(payment, -1)
        return self._become(payment, "canceled")

    def refund(self, refund_id: UUID, payment_id: UUID, merchant: int, terminal: int | None, amount: int) -> Answer:
        stored = self.refunds.get((merchant, refund_id))
        if stored is not None and stored != (payment_id, amount):
            return Answer("id_reused")
        payment = self.payments.get((merchant, payment_id))
        if payment is None or payment.body is None:
            return Answer("payment_unknown")
        if stored is not None:
            return self._replay(payment)._replace(refund=(refund_id, amount))
        if terminal is not None and not self.terminals[terminal].active:
            return Answer("terminal_disabled")
        if payment.status != "approved" or payment.purpose != "sale":
            return Answer("not_refundable")
        if self.now > payment.approved + limits.REFUND_WINDOW:
            return Answer("refund_too_late")
        if len(payment.refunds) == limits.REFUNDS_MAX:
            return Answer("too_many_refunds")
        if sum(payment.refunds) + amount > payment.amount:
            return Answer("refund_exceeds_remaining")
        self.refunds[merchant, refund_id] = (payment_id, amount)
        payment.refunds.append(amount)
        self.wallets[payment.wallet].balance += amount
        return self._become(payment, "approved")._replace(refund=(refund_id, amount))

    def expire(self, payment_id: UUID, merchant: int) -> Answer:
        payment = self.payments.get((merchant, payment_id))
        if payment is None:
            return Answer("payment_unknown")
        if payment.status == "pending" and payment.expires <= self.now:
            return self._become(payment, "expired")
        return self._replay(payment)

    # --- other changes

    def count_wrong_pin(self, wallet_number: int) -> None:
        wallet = self.wallets[wallet_number]
        wallet.wrong_pins += 1
        if wallet.wrong_pins == limits.WRONG_PINS_OF_A_WALLET:
            wallet.wrong_pins, wallet.locked_until = 0, self.now + limits.PIN_LOCK

    def new_pin(self, wallet_number: int) -> None:
        wallet = self.wallets[wallet_number]
        wallet.pin_generation += 1
        wallet.wrong_pins = wallet.locked_until = 0

    def overdue(self) -> set[Key]:
        return {(p.merchant, p.id) for p in self.payments.values() if p.status == "pending" and p.expires <= self.now}

    def occupant(self, merchant: int, reference: str) -> Payment | None:
        """Return the payment that prevents another payment of an order."""
        occupants = [
            p
            for p in self.payments.values()
            if p.merchant == merchant and p.reference == reference and p.occupies_reference
        ]
        assert len(occupants) <= 1, "two payments occupy one reference"
        return occupants[0] if occupants else None

    # --- the expected rows

    def wallet_rows(self) -> dict[int, tuple[int, ...]]:
        """Return balance, consecutive wrong PINs, end of the lock; and for today: sum, sum and number without a PIN."""
        rows = {}
        for wallet in self.wallets.values():
            spent, free = self.spent_today(wallet), self._free_today(wallet)
            rows[wallet.number] = (
                wallet.balance, wallet.wrong_pins, wallet.locked_until, spent, sum(free), len(free)
            )  # fmt: skip
        return rows

    def payment_rows(self) -> dict[Key, tuple[object, ...]]:
        """Return status, decline code, version, wrong PINs, refunded sum, number of refunds."""
        return {
            (p.merchant, p.id): (p.status, p.decline, p.version, p.wrong_pins, sum(p.refunds), len(p.refunds))
            for p in self.payments.values()
        }

    def merchant_rows(self) -> dict[int, int]:
        """Return each merchant's balance: sales less refunds, less fees that were not returned."""
        earned = dict.fromkeys(self.fees, 0)
        for p in self.payments.values():
            if p.purpose == "sale" and p.status == "approved":
                fee = self._fee(p)
                earned[p.merchant] += p.amount - sum(p.refunds) - (fee - fee * sum(p.refunds) // p.amount)
        return earned

    def spent_codes(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Return step and sequence number of the latest code that each device has spent."""
        return {key: device.last_code for key, device in self.devices.items()}

    def _fee(self, payment: Payment) -> int:
        """Return the fee, rounded half up and at most the amount."""
        percent, fixed = self.fees[payment.merchant]
        share = (Decimal(payment.amount) * percent / 10_000).quantize(Decimal(1), ROUND_HALF_UP)
        return min(int(share) + fixed, payment.amount)

    def _move(self, payment: Payment, sign: int) -> None:
        assert payment.wallet is not None, "a payment without a wallet moves no money"
        wallet = self.wallets[payment.wallet]
        wallet.balance += sign * (payment.amount if payment.purpose == "top_up" else -payment.amount)

    # --- reasons to decline

    def _decline_of_order(self, payment: Payment, earlier: Payment | None) -> str | None:
        occupant = self.occupant(payment.merchant, payment.reference or "")
        if earlier is not None or (occupant is not None and occupant.status == "canceled"):
            return "canceled"
        if occupant is None:
            return None
        payment.paid_by = occupant.id
        return "already_pending" if occupant.status == "pending" else "already_paid"

    def _decline_of_till(self, terminal: int) -> str | None:
        if not self.terminals[terminal].active:
            return "terminal_disabled"
        if self.terminals[terminal].merchant in self.inactive_merchants:
            return "merchant_inactive"
        return None

    def _decline_of_code(self, terminal: int, code: Code) -> str | None:
        till_decline = self._decline_of_till(terminal)
        if till_decline is not None:
            return till_decline
        if code.device is None:
            return "code_malformed"
        device = self.devices.get(code.device)
        age = self.now // limits.STEP - code.step
        if device is None or not device.active or not code.genuine or code.generation != device.generation:
            return "code_invalid"
        if not -1 <= age <= 1 + limits.EXPIRED_STEPS:
            return "code_invalid"
        if age > 1:
            return "code_expired"
        return "code_used" if (code.step, code.seq) <= device.last_code else None

    def _decline_of_amount(self, wallet: Wallet, payment: Payment) -> str | None:
        amount, currency = payment.amount, payment.currency
        if wallet.status != "active":
            return f"wallet_{wallet.status}"
        if wallet.currency != currency:
            return "currency_mismatch"
        if payment.purpose == "top_up":
            if amount > limits.PER_CURRENCY[currency]["top_up"]:
                return "amount_over_limit"
            return "balance_limit" if wallet.balance + amount > limits.PER_CURRENCY[currency]["balance"] else None
        if amount > limits.PER_CURRENCY[currency]["payment"]:
            return "amount_over_limit"
        if self.spent_today(wallet) + amount > limits.PER_CURRENCY[currency]["day"]:
            return "daily_limit"
        return "insufficient_funds" if amount > wallet.balance else None

    def _is_pin_free(self, wallet: Wallet, amount: int, currency: str) -> bool:
        allowed = limits.PER_CURRENCY[currency]
        today = self._free_today(wallet)
        return (
            amount <= allowed["free"]
            and len(today) + 1 <= allowed["free_count"]
            and sum(today) + amount <= allowed["free_day"]
        )

    def spent_today(self, wallet: Wallet) -> int:
        """Return the sum of today's payments. A cancel on the same day subtracts from it, a refund does not."""
        out = [p for p in self._approved_today(wallet) if p.purpose != "top_up"]
        return sum(p.amount for p in out if p.status == "approved")

    def _free_today(self, wallet: Wallet) -> list[int]:
        """Return today's amounts without a PIN. A cancel does not remove them."""
        return [p.amount for p in self._approved_today(wallet) if p.without_pin]

    def _approved_today(self, wallet: Wallet) -> Iterator[Payment]:
        for payment in self.payments.values():
            is_approved = payment.wallet == wallet.number and payment.approved is not None
            if is_approved and payment.approved // limits.DAY == self.now // limits.DAY:
                yield payment

    # --- answers

    def _of_wallet(self, payment_id: UUID, merchant: int, wallet_number: int) -> Payment | None:
        payment = self.payments.get((merchant, payment_id))
        return payment if payment is not None and payment.wallet == wallet_number else None

    def _become(self, payment: Payment, status: str, decline: str | None = None) -> Answer:
        payment.status, payment.decline = status, decline
        payment.version += 1
        return self._current(payment)

    def _replay(self, payment: Payment) -> Answer:
        return self._current(payment)._replace(replayed=True)

    def _current(self, payment: Payment) -> Answer:
        wallet = None if payment.wallet is None else self.wallets[payment.wallet]
        tries_left = 0
        if payment.status == "pending" and wallet is not None and wallet.locked_until <= self.now:
            tries_left = min(
                limits.WRONG_PINS_OF_A_PAYMENT - payment.wrong_pins,
                limits.WRONG_PINS_OF_A_WALLET - wallet.wrong_pins,
            )
        return Answer(
            payment_id=payment.id,
            merchant=payment.merchant,
            status=payment.status,
            decline=payment.decline,
            version=payment.version,
            reference=payment.reference,
            amount=payment.amount,
            paid_by=payment.paid_by,
            refunded=sum(payment.refunds),
            wallet=payment.wallet,
            balance=None if wallet is None else wallet.balance,
            tries_left=tries_left,
        )
