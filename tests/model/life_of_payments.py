"""A state machine plays payments twice: in a ledger, in batches, and in a plain model, one request at a time.

Requests wait until their batch is full; the model answers each at once. When the batch is decided and committed, every
answer must be the model's: status, decline code, refusal, version, balance, refunded sum, tries left. Then the rows are
compared, and every so often audited. `live` in `runs.py` runs the machine.
"""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from pos_server.core.credentials import payment_code
from pos_server.core.payments.operations import CreateRefund, Expire, MoveCash, Reject
from pos_server.core.payments.payment import Purpose
from tests.model import model
from tests.model.ledger import REVOKED, WALLETS
from tests.model.model import Code
from tests.model.two_sides import TwoSides
from tests.support import forged

CASH = [Purpose.TOP_UP, Purpose.WITHDRAWAL]
RECENT = st.integers(0, 5)  # 0 is the latest
TERMINALS = st.integers(0, 4)
OWN_WALLET = st.sampled_from([0, 0, 1, 2, 3])
BATCH = st.sampled_from([1, 2, 3, 5, 8])
_SMALL = [1, 200, 200, 500, 501, 900, 1_000]
_LARGE = [1_001, 1_700, 1_700, 2_500, 3_000, 4_000, 5_001]
AMOUNTS = st.sampled_from([*_SMALL, *_LARGE, model.REJECTED_AMOUNT, model.ASKED_AMOUNT])
_PIN_MOVES = ["right PIN", "wrong PIN", "reject", "expire"]
_TILL_MOVES = ["cancel", "cancel the order", "scan its id", "scan its order", "refund half", "refund all"]
MOVES = st.sampled_from([*_PIN_MOVES, *_TILL_MOVES, "scan its order", "refund half"])
PINS = st.sampled_from([[True], [True], [True], [False], [False, True], [False, False], [False, True, False]])
# Mostly short, so that what waits for a PIN may still get it.
_SHORT = [model.SECOND, model.SECOND, model.STEP, model.STEP, 2 * model.STEP, 4 * model.STEP, model.PIN_LOCK]
CLOCK = st.sampled_from([*_SHORT, 8 * 3_600_000, model.CANCEL_WINDOW, model.CANCEL_WINDOW + 1, model.REFUND_WINDOW])


class LifeOfPayments(TwoSides):
    """Rules are what tills, customers, issuers, servers and the clock do."""

    # --- scans

    @rule(terminal=TERMINALS, wallet=OWN_WALLET, amount=AMOUNTS, room=BATCH)
    def pay(self, terminal: int, wallet: int, amount: int, room: int) -> None:
        """A fresh code for a new order, at a till of the wallet's currency."""
        terminal = self.till_for(wallet, terminal)
        self.scan(self.new_id(), terminal, self.new_reference(), amount, self.fresh_code(wallet, 0), room)

    @rule(
        terminal=TERMINALS,
        wallet=OWN_WALLET,
        what=st.sampled_from(["balance", "day"]),
        more=st.integers(0, 1),
        room=BATCH,
    )
    def pay_to_the_limit(self, terminal: int, wallet: int, what: str, more: int, room: int) -> None:
        """All that the balance or the day's limit leaves, or one more; with the PIN, if it is asked for."""
        known = self.model.wallets[self.ledger.wallets[wallet]]
        limits = model.LIMITS[known.currency]
        left = {"balance": known.balance, "day": limits["day"] - self.model.spent_today(known)}[what]
        amount = max(1, min(left, limits["payment"]) + more)
        terminal, payment_id = self.till_for(wallet, terminal), self.new_id()
        self.scan(payment_id, terminal, self.new_reference(), amount, self.fresh_code(wallet, 0), room)
        payment = self.model.payments[payment_id]
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
    def scan_oddly(
        self, terminal: int, device: int, amount: int, steps: int, seq: int, kind: str, typed: bool, room: int
    ) -> None:
        """Any code of any device, made for another time or spoiled."""
        number, slot = self.ledger.devices[device]
        if kind == "of no device":
            slot = 7
        if kind == "of no wallet":
            number = payment_code.WALLET_NUMBER_MAX
        code = self.make_code(number, slot, self.model.now // model.STEP + steps, seq)
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
        """Another body under an id that is known: one that was canceled before it came, or one that is taken."""
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
        """The cashier takes cash, or pays it out."""
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
        """A back office says so; now and then for nobody's wallet, or under an id or for an order that is known."""
        merchant = list(self.ledger.merchants)[merchant]
        number = payment_code.WALLET_NUMBER_MAX if wallet is None else self.ledger.wallets[wallet]
        payment_id = self.recent(self.payment_ids, recent) if known_id and self.payment_ids else self.new_id()
        reference = self.recent(self.references, recent) if known_order and self.references else self.new_reference()
        currency = self.ledger.merchants[merchant]
        self.ask(MoveCash(payment_id, merchant, number, reference, amount, currency, purpose), room)

    # --- the customer

    @precondition(lambda self: self.model.payments)
    @rule(recent=RECENT, pins=PINS, room=BATCH)
    def confirm(self, recent: int, pins: list[bool], room: int) -> None:
        """One PIN after the other, as the customer is asked for them."""
        payment = self.waiting(recent)
        for correct in pins:
            self.ask(self.make_confirm(payment, payment.wallet, payment.version, correct, 0), room)

    @precondition(lambda self: self.model.payments)
    @rule(
        recent=RECENT,
        what=st.sampled_from(["early version", "late version", "old PIN", "old PIN", "stranger", "stranger rejects"]),
        correct=st.booleans(),
        stranger=OWN_WALLET,
        room=BATCH,
    )
    def answer_oddly(self, recent: int, what: str, correct: bool, stranger: int, room: int) -> None:
        """Another version of the payment, a PIN that was changed since it was checked, or somebody else's payment."""
        payment = self.waiting(recent)
        number = self.ledger.wallets[stranger] if what.startswith("stranger") else payment.wallet
        if what == "stranger rejects":
            self.ask(Reject(payment.id, number, 0), room)
            return
        version = payment.version + {"early version": -1, "late version": 1}.get(what, 0)
        self.ask(self.make_confirm(payment, number, version, correct, int(what == "old PIN")), room)

    @precondition(lambda self: self.model.payments)
    @rule(recent=RECENT, room=BATCH)
    def reject(self, recent: int, room: int) -> None:
        payment = self.waiting(recent)
        self.ask(Reject(payment.id, payment.wallet or self.ledger.wallets[0], 0), room)

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
    def take_back(self, recent: int, room: int) -> None:
        """At its own till, and paid if there is one that is."""
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
    def refund_oddly(self, recent: int, terminal: int, amount: int, known: int, new: bool, room: int) -> None:
        """Any payment, at any till, and perhaps under an id that is taken."""
        refund_id = self.new_id(self.refund_ids) if new or not self.refund_ids else self.recent(self.refund_ids, known)
        number = self.terminals[terminal]
        payment_id = self.recent(self.payment_ids, recent)
        self.ask(CreateRefund(refund_id, payment_id, self.ledger.terminals[number], number, amount), room)

    @precondition(lambda self: self.asked)
    @rule(recent=st.integers(0, 11), times=st.integers(1, 2), room=BATCH)
    def send_again(self, recent: int, times: int, room: int) -> None:
        """Word for word, and now and then twice."""
        operation, code = self.recent(self.asked, recent)
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
    def all_at_once(self, recent: int, status: str, moves: list[str], amount: int, wallet: int) -> None:
        """Everybody wants something of one payment, in one batch."""
        self.argue(self.preferably(status, recent), moves, amount, wallet)

    @precondition(lambda self: self.is_waited_for())
    @rule(recent=RECENT, moves=st.sampled_from([["reject"], ["expire"], ["wrong PIN", "wrong PIN"]]), amount=AMOUNTS)
    def the_next_try_comes_at_once(self, recent: int, moves: list[str], amount: int) -> None:
        """The order of a payment that ends is scanned again in the same batch."""
        payment = self.waiting(recent)
        if moves == ["expire"]:
            self.commit()
            self.model.now = max(self.model.now, payment.expires)
        self.argue(payment, [*moves, "scan its order"], amount, 0)

    # --- the server, the issuer, the clock

    @precondition(lambda self: self.payment_ids)
    @rule(recent=RECENT, room=BATCH)
    def expire(self, recent: int, room: int) -> None:
        """An Expire that comes too early, or too late, or for nothing."""
        self.ask(Expire(self.recent(self.payment_ids, recent)), room)

    @rule()
    def sweep(self) -> None:
        self.commit()
        overdue = self.ledger.overdue(self.model.now)
        assert overdue == self.model.overdue()
        self.room = len(overdue) + 1
        for payment_id in sorted(overdue):
            self.ask(Expire(payment_id))

    @precondition(lambda self: self.last_batch)
    @rule()
    def the_answer_of_a_commit_is_lost(self) -> None:
        """So the whole batch is run again."""
        self.commit()
        batch = self.last_batch
        self.room = len(batch)
        for operation, code in batch:
            self.ask(operation, code=code)

    @rule()
    def another_server_is_faster(self) -> None:
        """With the wallets of the next batch, between its load and its commit."""
        self.outrun = True

    @rule(by=CLOCK)
    def time_passes(self, by: int) -> None:
        self.commit()
        self.model.now += by

    @precondition(lambda self: self.model.payments)
    @rule(
        recent=RECENT,
        early=st.integers(0, 1),
        what=st.sampled_from(["PIN", "PIN", "cancel", "refund", "day"]),
        is_used=st.booleans(),
        room=BATCH,
    )
    def time_is_nearly_over(self, recent: int, early: int, what: str, is_used: bool, room: int) -> None:
        """For a PIN, a cancel, a refund, or for today: to the millisecond, or one before. It may be used at once."""
        self.commit()
        payment = self.preferably("pending" if what == "PIN" else "approved", recent)
        over = {
            "PIN": payment.expires,
            "cancel": (payment.approved or 0) + model.CANCEL_WINDOW + 1,
            "refund": (payment.approved or 0) + model.REFUND_WINDOW + 1,
            "day": (self.model.now // model.DAY + 1) * model.DAY,
        }
        self.model.now = max(self.model.now, over[what] - early)
        if is_used and what == "PIN":
            self.ask(self.make_confirm(payment, payment.wallet, payment.version, True, 0), room)
        elif is_used and what == "cancel":
            self.ask(self.make_cancel(self.till_of(payment), payment.id, None), room)
        elif is_used and what == "refund":
            refund_id = self.new_id(self.refund_ids)
            self.ask(CreateRefund(refund_id, payment.id, payment.merchant, payment.terminal, 1), room)

    @rule(
        what=st.sampled_from(["wallet", "terminal", "merchant"]),
        who=st.integers(0, 4),
        status=st.sampled_from(["active", "active", "active", "off", "closed"]),
    )
    def close_or_open(self, what: str, who: int, status: str) -> None:
        """A wallet, a terminal, or all of a merchant."""
        numbers = {"wallet": self.ledger.wallets, "terminal": self.terminals, "merchant": list(self.ledger.merchants)}
        self.set_status(what, self.recent(numbers[what], who), status)

    @precondition(lambda self: self.is_waited_for())
    @rule(what=st.sampled_from(["wallet", "terminal", "merchant"]), recent=RECENT, reopened=st.booleans())
    def close_while_the_customer_thinks(self, what: str, recent: int, reopened: bool) -> None:
        """And the PIN comes after."""
        payment = self.waiting(recent)
        number = {"wallet": payment.wallet, "terminal": payment.terminal, "merchant": payment.merchant}[what]
        self.set_status(what, number, "off")
        self.ask(self.make_confirm(payment, payment.wallet, payment.version, True, 0), 1)
        if reopened:
            self.set_status(what, number, "active")

    @rule(
        what=st.sampled_from(["sets PIN", "guesses PIN", "guesses PIN", "loses PIN", "new phone", "money", "money"]),
        wallet=OWN_WALLET,
        slot=st.integers(0, 1),
    )
    def wallet_changes(self, what: str, wallet: int, slot: int) -> None:
        """What a customer or an issuer does to a wallet besides paying."""
        self.commit()
        number = self.ledger.wallets[wallet]
        known = self.model.wallets[number]
        if what == "sets PIN":
            self.ledger.set_pin(number, known.pin_generation)
            self.model.new_pin(number)
        elif what == "loses PIN":
            self.ledger.reset_pin(number)
            self.model.new_pin(number)
        elif what == "guesses PIN" and known.locked_until <= self.model.now:
            self.ledger.count_wrong_pin(number, known.pin_generation, self.model.now)
            self.model.count_wrong_pin(number)
        elif what == "new phone" and (number, slot) in self.model.devices and wallet != REVOKED[0]:
            # Old codes are worth nothing, and no new one is used.
            self.model.devices[number, slot] = model.Device(self.ledger.activate(number, slot))
        elif (
            what == "money"
            and known.status == "active"
            and min(self.ledger.merchants) not in self.model.inactive_merchants
        ):
            known.balance += 2_000
            assert self.ledger.top_up(number, 2_000, known.currency, self.model.now) == known.balance

    @rule()
    def audit(self) -> None:
        self.commit()
        self.ledger.audit()
