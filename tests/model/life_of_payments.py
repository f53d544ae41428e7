"""A state machine that sends random requests to a ledger, in batches, and to a plain model, one at a time.

The model answers each request at once; the ledger decides when the batch is full. All answers must then be equal in
status, decline code, refusal, version, balance, refunded sum and tries left, and so must the rows. The ledger is
audited from time to time. `live` in `runs.py` runs the machine.
"""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from pos_server.core.credentials import payment_code
from pos_server.core.payments.operations import CreateRefund, Expire, MoveCash, Reject
from pos_server.core.payments.payment import Purpose
from tests.model import limits, records
from tests.model.ledger import REVOKED, WALLETS
from tests.model.records import Code
from tests.model.two_sides import TwoSides
from tests.support import forged

CASH = [Purpose.TOP_UP, Purpose.WITHDRAWAL]
RECENT = st.integers(0, 5)  # 0 means the latest
TERMINALS = st.integers(0, 4)
OWN_WALLET = st.sampled_from([0, 0, 1, 2, 3])
BATCH = st.sampled_from([1, 2, 3, 5, 8])
_SMALL = [1, 200, 200, 500, 501, 900, 1_000]
_LARGE = [1_001, 1_700, 1_700, 2_500, 3_000, 4_000, 5_001]
AMOUNTS = st.sampled_from([*_SMALL, *_LARGE, limits.REJECTED_AMOUNT, limits.ASKED_AMOUNT])
_PIN_MOVES = ["right PIN", "wrong PIN", "reject", "expire"]
_TILL_MOVES = ["cancel", "cancel the order", "scan its id", "scan its order", "refund half", "refund all"]
MOVES = st.sampled_from([*_PIN_MOVES, *_TILL_MOVES, "scan its order", "refund half"])
PINS = st.sampled_from([[True], [True], [True], [False], [False, True], [False, False], [False, True, False]])
# Mostly short, so that pending payments can still be confirmed.
_SHORT = [*[limits.SECOND] * 2, *[limits.STEP] * 2, 2 * limits.STEP, 4 * limits.STEP, limits.PIN_LOCK]
CLOCK = st.sampled_from([*_SHORT, 8 * 3_600_000, limits.CANCEL_WINDOW, limits.CANCEL_WINDOW + 1, limits.REFUND_WINDOW])


class LifeOfPayments(TwoSides):
    """The rules of the machine: actions of tills, customers, issuers, servers and the clock."""

    # --- scans

    @rule(terminal=TERMINALS, wallet=OWN_WALLET, amount=AMOUNTS, room=BATCH)
    def pay(self, terminal: int, wallet: int, amount: int, room: int) -> None:
        """Scan a new code for a new order at a till with the wallet's currency."""
        terminal = self.till_for(wallet, terminal)
        self.scan(self.new_id(), terminal, self.new_reference(), amount, self.fresh_code(wallet, 0), room)

    @rule(
        terminal=TERMINALS,
        wallet=OWN_WALLET,
        limit=st.sampled_from(["balance", "day"]),
        more=st.integers(0, 1),
        room=BATCH,
    )
    def pay_to_the_limit(self, terminal: int, wallet: int, limit: str, more: int, room: int) -> None:
        """Pay up to the balance or the day's limit, or one unit more, and confirm with the PIN."""
        payer = self.model.wallets[self.ledger.wallets[wallet]]
        allowed = limits.PER_CURRENCY[payer.currency]
        left = {"balance": payer.balance, "day": allowed["day"] - self.model.spent_today(payer)}[limit]
        amount = max(1, min(left, allowed["payment"]) + more)
        terminal, payment_id = self.till_for(wallet, terminal), self.new_id()
        self.scan(payment_id, terminal, self.new_reference(), amount, self.fresh_code(wallet, 0), room)
        payment = list(self.model.payments.values())[-1]
        self.ask(self.make_confirm(payment, payment.wallet, payment.version, True, 0), room)

    @rule(
        terminal=TERMINALS,
        device=st.integers(0, 6),
        amount=AMOUNTS,
        steps=st.sampled_from([0, -1, 1, -2, -5, -6, 2]),
        seq=st.integers(0, 9),
        kind=st.sampled_from(["good", "good", "forged", "cut short", "of no device", "of no wallet"]),
        typed=st.booleans(),
        room=BATCH,
    )
    def scan_unusual_code(
        self, terminal: int, device: int, amount: int, steps: int, seq: int, kind: str, typed: bool, room: int
    ) -> None:
        """Scan any code of any device, for another time or damaged."""
        number, slot = self.ledger.devices[device]
        if kind == "of no device":
            slot = 7
        if kind == "of no wallet":
            number = payment_code.WALLET_NUMBER_MAX
        code = self.make_code(number, slot, self.model.now // limits.STEP + steps, seq)
        if kind == "forged":
            code = code._replace(text=forged(code.text), genuine=False)
        if kind == "cut short":
            code = Code(code.text[:-1], None)
        self.scan(self.new_id(), terminal, self.new_reference(), amount, code, room, typed=typed)

    @rule(
        terminal=TERMINALS, wallet=OWN_WALLET, slot=st.integers(0, 1), amount=AMOUNTS, typed=st.booleans(), room=BATCH
    )
    def pay_typed_or_by_any_device(
        self, terminal: int, wallet: int, slot: int, amount: int, typed: bool, room: int
    ) -> None:
        slot = slot if WALLETS[wallet][2] > slot else 0
        terminal = self.till_for(wallet, terminal)
        code = self.fresh_code(wallet, slot)
        self.scan(self.new_id(), terminal, self.new_reference(), amount, code, room, typed=typed)

    @precondition(lambda self: self.codes)
    @rule(terminal=TERMINALS, recent=RECENT, amount=AMOUNTS, room=BATCH)
    def scan_a_code_again(self, terminal: int, recent: int, amount: int, room: int) -> None:
        self.scan(self.new_id(), terminal, self.new_reference(), amount, self.recent(self.codes, recent), room)

    @precondition(lambda self: self.references)
    @rule(terminal=TERMINALS, recent=RECENT, wallet=OWN_WALLET, amount=AMOUNTS, room=BATCH)
    def scan_for_an_order_again(self, terminal: int, recent: int, wallet: int, amount: int, room: int) -> None:
        reference = self.recent(self.references, recent)
        terminal = self.till_for(wallet, terminal)
        self.scan(self.new_id(), terminal, reference, amount, self.fresh_code(wallet, 0), room)

    @precondition(lambda self: self.payment_ids)
    @rule(terminal=TERMINALS, recent=RECENT, order=RECENT, wallet=OWN_WALLET, amount=AMOUNTS, room=BATCH)
    def scan_with_a_known_id(self, terminal: int, recent: int, order: int, wallet: int, amount: int, room: int) -> None:
        """Send another body under a known id: one that was canceled before its scan, or one that is taken."""
        reference = self.recent(self.references, order) if self.references else self.new_reference()
        payment_id = self.recent(self.payment_ids, recent)
        self.scan(payment_id, terminal, reference, amount, self.fresh_code(wallet, 0), room)

    # --- cash

    @rule(
        terminal=TERMINALS,
        wallet=OWN_WALLET,
        amount=AMOUNTS,
        purpose=st.sampled_from(CASH),
        typed=st.booleans(),
        room=BATCH,
    )
    def cash_at_the_till(
        self, terminal: int, wallet: int, amount: int, purpose: Purpose, typed: bool, room: int
    ) -> None:
        """Top up or withdraw at the till."""
        terminal, code = self.till_for(wallet, terminal), self.fresh_code(wallet, 0)
        self.scan(self.new_id(), terminal, self.new_reference(), amount, code, room, typed=typed, purpose=purpose)

    @rule(
        merchant=st.integers(0, 2),
        wallet=st.sampled_from([0, 0, 1, 2, 3, None]),
        amount=AMOUNTS,
        purpose=st.sampled_from(CASH),
        known_id=st.sampled_from([False, False, False, True]),
        known_order=st.sampled_from([False, False, False, True]),
        recent=RECENT,
        room=BATCH,
    )
    def cash_through_the_api(
        self,
        merchant: int,
        wallet: int | None,
        amount: int,
        purpose: Purpose,
        known_id: bool,
        known_order: bool,
        recent: int,
        room: int,
    ) -> None:
        """Top up or withdraw by a back office, sometimes with an unknown wallet, a known id or a known order."""
        merchant = list(self.ledger.merchants)[merchant]
        number = payment_code.WALLET_NUMBER_MAX if wallet is None else self.ledger.wallets[wallet]
        payment_id = self.recent(self.payment_ids, recent) if known_id and self.payment_ids else self.new_id()
        reference = self.recent(self.references, recent) if known_order and self.references else self.new_reference()
        currency = self.ledger.merchants[merchant]
        self.ask(MoveCash(payment_id, merchant, number, reference, amount, currency, purpose), room)

    @rule(terminal=TERMINALS, wallet=OWN_WALLET, amount=AMOUNTS, room=BATCH)
    def cancel_a_spent_top_up(self, terminal: int, wallet: int, amount: int, room: int) -> None:
        """Top up, spend the balance as far as a payment may, and cancel the top-up."""
        terminal, payment_id = self.till_for(wallet, terminal), self.new_id()
        code = self.fresh_code(wallet, 0)
        self.scan(payment_id, terminal, self.new_reference(), amount, code, room, purpose=Purpose.TOP_UP)
        self.pay_to_the_limit(terminal, wallet, "balance", 0, room)
        self.ask(self.make_cancel(terminal, payment_id, None), room)

    # --- the customer

    @precondition(lambda self: self.model.payments)
    @rule(recent=RECENT, pins=PINS, room=BATCH)
    def confirm(self, recent: int, pins: list[bool], room: int) -> None:
        """Enter PINs one after the other."""
        payment = self.pending(recent)
        for correct in pins:
            self.ask(self.make_confirm(payment, payment.wallet, payment.version, correct, 0), room)

    @precondition(lambda self: self.model.payments)
    @rule(
        recent=RECENT,
        fault=st.sampled_from(["early version", "late version", "old PIN", "old PIN", "stranger", "stranger rejects"]),
        correct=st.booleans(),
        stranger=OWN_WALLET,
        room=BATCH,
    )
    def confirm_wrongly(self, recent: int, fault: str, correct: bool, stranger: int, room: int) -> None:
        """Confirm another version, with a PIN that was changed after its check, or a payment of another wallet."""
        payment = self.pending(recent)
        number = self.ledger.wallets[stranger] if fault.startswith("stranger") else payment.wallet
        if fault == "stranger rejects":
            self.ask(Reject(payment.id, payment.merchant, number, 0), room)
            return
        version = payment.version + {"early version": -1, "late version": 1}.get(fault, 0)
        self.ask(self.make_confirm(payment, number, version, correct, int(fault == "old PIN")), room)

    @precondition(lambda self: self.model.payments)
    @rule(recent=RECENT, room=BATCH)
    def reject(self, recent: int, room: int) -> None:
        payment = self.pending(recent)
        self.ask(Reject(payment.id, payment.merchant, payment.wallet or self.ledger.wallets[0], 0), room)

    # --- the till

    @rule(terminal=TERMINALS, recent=RECENT, unseen=st.sampled_from([False, False, True]), room=BATCH)
    def cancel(self, terminal: int, recent: int, unseen: bool, room: int) -> None:
        payment_id = self.new_id() if unseen or not self.payment_ids else self.recent(self.payment_ids, recent)
        self.ask(self.make_cancel(terminal, payment_id, None), room)

    @rule(terminal=TERMINALS, recent=RECENT, unseen=st.sampled_from([False, False, True]), room=BATCH)
    def cancel_an_order(self, terminal: int, recent: int, unseen: bool, room: int) -> None:
        reference = self.new_reference() if unseen or not self.references else self.recent(self.references, recent)
        self.ask(self.make_cancel(terminal, None, reference), room)

    @precondition(lambda self: self.model.payments)
    @rule(recent=RECENT, room=BATCH)
    def cancel_at_its_till(self, recent: int, room: int) -> None:
        """Cancel a payment at its own till, preferably an approved one."""
        payment = self.preferably("approved", recent)
        self.ask(self.make_cancel(self.till_of(payment), payment.id, None), room)

    @precondition(lambda self: self.model.payments)
    @rule(recent=RECENT, percent=st.sampled_from([1, 40, 50, 60, 100, 101]), through_api=st.booleans(), room=BATCH)
    def refund(self, recent: int, percent: int, through_api: bool, room: int) -> None:
        payment = self.preferably("approved", recent)
        refund_id = self.new_id(self.refund_ids)
        terminal = None if through_api else payment.terminal
        amount = max(1, payment.amount * percent // 100)
        self.ask(CreateRefund(refund_id, payment.id, payment.merchant, terminal, amount), room)

    @precondition(lambda self: self.payment_ids)
    @rule(
        recent=RECENT,
        terminal=TERMINALS,
        amount=st.sampled_from([1, 500, 9_999]),
        known=RECENT,
        new=st.booleans(),
        room=BATCH,
    )
    def refund_anything(self, recent: int, terminal: int, amount: int, known: int, new: bool, room: int) -> None:
        """Refund any payment at any till, possibly under an id that is taken."""
        refund_id = self.new_id(self.refund_ids) if new or not self.refund_ids else self.recent(self.refund_ids, known)
        number = self.terminals[terminal]
        payment_id = self.recent(self.payment_ids, recent)
        self.ask(CreateRefund(refund_id, payment_id, self.ledger.terminals[number], number, amount), room)

    @precondition(lambda self: self.requests)
    @rule(recent=st.integers(0, 11), times=st.integers(1, 2), room=BATCH)
    def repeat(self, recent: int, times: int, room: int) -> None:
        """Repeat a request once or twice."""
        operation, code = self.recent(self.requests, recent)
        for _ in range(times):
            self.ask(operation, room, code)

    @precondition(lambda self: self.model.payments)
    @rule(
        recent=RECENT,
        status=st.sampled_from(["pending", "pending", "approved", "declined", "canceled"]),
        moves=st.lists(MOVES, min_size=2, max_size=5),
        amount=AMOUNTS,
        wallet=OWN_WALLET,
    )
    def concurrent_requests(self, recent: int, status: str, moves: list[str], amount: int, wallet: int) -> None:
        """Send several requests about one payment in one batch."""
        self.send_batch(self.preferably(status, recent), moves, amount, wallet)

    @precondition(lambda self: self.has_pending())
    @rule(recent=RECENT, moves=st.sampled_from([["reject"], ["expire"], ["wrong PIN", "wrong PIN"]]), amount=AMOUNTS)
    def end_and_scan_again(self, recent: int, moves: list[str], amount: int) -> None:
        """End a pending payment and scan its order again in the same batch."""
        payment = self.pending(recent)
        if moves == ["expire"]:
            self.commit()
            self.model.now = max(self.model.now, payment.expires)
        self.send_batch(payment, [*moves, "scan its order"], amount, 0)

    # --- the server, the issuer, the clock

    @precondition(lambda self: self.payment_ids)
    @rule(recent=RECENT, merchant=st.integers(0, 2), room=BATCH)
    def expire(self, recent: int, merchant: int, room: int) -> None:
        """Send an Expire at any time, for any payment."""
        merchant = list(self.ledger.merchants)[merchant]
        self.ask(Expire(self.recent(self.payment_ids, recent), merchant), room)

    @rule()
    def sweep(self) -> None:
        self.commit()
        overdue = self.ledger.overdue(self.model.now)
        assert overdue == self.model.overdue()
        self.room = len(overdue) + 1
        for merchant, payment_id in sorted(overdue):
            self.ask(Expire(payment_id, merchant))

    @precondition(lambda self: self.last_batch)
    @rule()
    def lose_the_answer_of_a_commit(self) -> None:
        """Run the whole batch again, as after a lost answer."""
        self.commit()
        batch = self.last_batch
        self.room = len(batch)
        for operation, code in batch:
            self.ask(operation, code=code)

    @rule()
    def commit_by_another_server(self) -> None:
        """Let another server change the wallets of the next batch between its load and its commit."""
        self.outrun = True

    @rule(by=CLOCK)
    def advance_clock(self, by: int) -> None:
        self.commit()
        self.model.now += by

    @precondition(lambda self: self.model.payments)
    @rule(
        recent=RECENT,
        early=st.integers(0, 1),
        deadline=st.sampled_from(["PIN", "PIN", "cancel", "refund", "day"]),
        is_used=st.booleans(),
        room=BATCH,
    )
    def advance_to_deadline(self, recent: int, early: int, deadline: str, is_used: bool, room: int) -> None:
        """Advance the clock to the end of a period or 1 ms before it, and possibly send the request at that moment."""
        self.commit()
        payment = self.preferably("pending" if deadline == "PIN" else "approved", recent)
        ends = {
            "PIN": payment.expires,
            "cancel": (payment.approved or 0) + limits.CANCEL_WINDOW + 1,
            "refund": (payment.approved or 0) + limits.REFUND_WINDOW + 1,
            "day": (self.model.now // limits.DAY + 1) * limits.DAY,
        }
        self.model.now = max(self.model.now, ends[deadline] - early)
        if is_used and deadline == "PIN":
            self.ask(self.make_confirm(payment, payment.wallet, payment.version, True, 0), room)
        elif is_used and deadline == "cancel":
            self.ask(self.make_cancel(self.till_of(payment), payment.id, None), room)
        elif is_used and deadline == "refund":
            refund_id = self.new_id(self.refund_ids)
            self.ask(CreateRefund(refund_id, payment.id, payment.merchant, payment.terminal, 1), room)

    @rule(
        kind=st.sampled_from(["wallet", "terminal", "merchant"]),
        position=st.integers(0, 4),
        status=st.sampled_from(["active", "active", "active", "off", "closed"]),
    )
    def change_status(self, kind: str, position: int, status: str) -> None:
        """Change the status of a wallet, a terminal or a merchant."""
        numbers = {"wallet": self.ledger.wallets, "terminal": self.terminals, "merchant": list(self.ledger.merchants)}
        self.set_status(kind, self.recent(numbers[kind], position), status)

    @precondition(lambda self: self.has_pending())
    @rule(kind=st.sampled_from(["wallet", "terminal", "merchant"]), recent=RECENT, reopened=st.booleans())
    def block_before_the_pin(self, kind: str, recent: int, reopened: bool) -> None:
        """Block a wallet, a terminal or a merchant before the PIN of a pending payment."""
        payment = self.pending(recent)
        number = {"wallet": payment.wallet, "terminal": payment.terminal, "merchant": payment.merchant}[kind]
        self.set_status(kind, number, "off")
        self.ask(self.make_confirm(payment, payment.wallet, payment.version, True, 0), 1)
        if reopened:
            self.set_status(kind, number, "active")

    @rule(
        change=st.sampled_from(["new PIN", "wrong PIN", "wrong PIN", "PIN reset", "new phone", "top-up", "top-up"]),
        wallet=OWN_WALLET,
        slot=st.integers(0, 1),
    )
    def change_wallet(self, change: str, wallet: int, slot: int) -> None:
        """Change a wallet as a customer or an issuer does."""
        self.commit()
        number = self.ledger.wallets[wallet]
        expected = self.model.wallets[number]
        if change == "new PIN":
            self.ledger.set_pin(number, expected.pin_generation)
            self.model.new_pin(number)
        elif change == "PIN reset":
            self.ledger.reset_pin(number)
            self.model.new_pin(number)
        elif change == "wrong PIN" and expected.locked_until <= self.model.now:
            self.ledger.count_wrong_pin(number, expected.pin_generation, self.model.now)
            self.model.count_wrong_pin(number)
        elif change == "new phone" and (number, slot) in self.model.devices and wallet != REVOKED[0]:
            # The new key invalidates all earlier codes.
            self.model.devices[number, slot] = records.Device(self.ledger.activate(number, slot))
        elif (
            change == "top-up"
            and expected.status == "active"
            and min(self.ledger.merchants) not in self.model.inactive_merchants
        ):
            expected.balance += 2_000
            assert self.ledger.top_up(number, 2_000, expected.currency, self.model.now) == expected.balance

    @rule()
    def audit(self) -> None:
        self.commit()
        self.ledger.audit()
