"""Both sides of the state machine: requests go to the model at once and to the ledger in batches, and are compared."""

from collections import Counter
from typing import Any, ClassVar
from uuid import UUID

from hypothesis import note
from hypothesis.stateful import RuleBasedStateMachine, invariant

from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind, derive_device_key
from pos_server.core.payments.operations import (
    Cancel,
    Confirm,
    CreateRefund,
    Entry,
    Expire,
    MoveCash,
    Operation,
    Outcome,
    Refunded,
    Refused,
    Reject,
    Scan,
)
from pos_server.core.payments.payment import TRANSITIONS, Purpose, Status
from tests.model import limits, records
from tests.model.ledger import FEES, REVOKED, WALLETS, Ledger
from tests.model.model import Model
from tests.model.records import Answer, Code, Key
from tests.support import KEYRING

# In the past, because the audit finds rows from the future.
FIRST_MORNING = 18_000 * limits.DAY + 8 * 3_600_000


class TwoSides(RuleBasedStateMachine):
    """A machine without rules. The test sets `ledger`, `steps` and `met`."""

    ledger: Ledger
    steps = 0
    met: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.ledger.begin()
        revoked = (self.ledger.wallets[REVOKED[0]], REVOKED[1])
        self.model = Model(
            wallets={
                number: records.Wallet(number, currency, balance)
                for number, (currency, balance, _) in zip(self.ledger.wallets, WALLETS, strict=True)
            },
            devices={device: records.Device(active=device != revoked) for device in self.ledger.devices},
            terminals={number: records.Terminal(merchant) for number, merchant in self.ledger.terminals.items()},
            fees=dict(zip(self.ledger.merchants, FEES, strict=True)),
            now=FIRST_MORNING,
        )
        self.terminals = list(self.ledger.terminals)
        self.batch: list[tuple[Operation, Answer, Code | None]] = []
        self.last_batch: list[tuple[Operation, Code | None]] = []
        self.outrun = False
        self.room = 1
        self.agreed = True
        self.begun = False
        self.ids = 0
        self.payment_ids: list[UUID] = []
        self.refund_ids: list[UUID] = []
        self.references: list[str] = []
        self.codes: list[Code] = []
        self.shown: dict[tuple[int, int], tuple[int, int]] = {}
        self.requests: list[tuple[Operation, Code | None]] = []
        self.statuses: dict[Key, Status] = {}

    @invariant()
    def count_steps(self) -> None:
        """Count a step; invariants also run once before the first step."""
        type(self).steps += self.begun
        self.begun = True

    # --- construction of requests

    def scan(
        self,
        payment_id: UUID,
        terminal: int,
        reference: str,
        amount: int,
        code: Code,
        room: int | None = None,
        *,
        typed: bool = False,
        purpose: Purpose = Purpose.SALE,
    ) -> None:
        number = self.terminals[terminal]
        merchant = self.ledger.terminals[number]
        currency = self.ledger.merchants[merchant]
        entry = Entry.TYPED if typed else Entry.SCANNED
        self.codes.append(code)
        scan = Scan(payment_id, number, merchant, reference, amount, currency, code.text, entry, purpose)
        self.ask(scan, room, code)

    @staticmethod
    def till_for(wallet: int, terminal: int) -> int:
        """Return this till, or another one with the wallet's currency."""
        if WALLETS[wallet][0] == "JPY":
            return 4
        return terminal % 4

    def till_of(self, payment: records.Payment) -> int:
        """Return the till of a payment; for a payment through the API, the merchant's first till."""
        if payment.terminal is not None:
            return self.terminals.index(payment.terminal)
        return [self.ledger.terminals[number] for number in self.terminals].index(payment.merchant)

    def make_cancel(self, terminal: int, payment_id: UUID | None, reference: str | None) -> Cancel:
        number = self.terminals[terminal]
        merchant = self.ledger.terminals[number]
        # A till learns the tombstone's id from the answer, so later requests can use it.
        tombstone_id = self.new_id() if payment_id is None else UUID(int=0)
        return Cancel(number, merchant, self.ledger.merchants[merchant], payment_id, reference, tombstone_id)

    def make_confirm(
        self, payment: records.Payment, number: int | None, version: int, correct: bool, old_pin: int
    ) -> Confirm:
        number = number or self.ledger.wallets[0]
        return Confirm(
            payment.id,
            payment.merchant,
            number,
            0,
            version,
            correct,
            self.model.wallets[number].pin_generation - old_pin,
        )

    def fresh_code(self, wallet: int, slot: int) -> Code:
        number = self.ledger.wallets[wallet]
        now_step = self.model.now // limits.STEP
        step, seq = self.shown.get((number, slot), (0, 0))
        step, seq = (step, seq + 1) if step >= now_step else (now_step, 0)
        if seq > payment_code.SEQ_MAX:
            step, seq = step + 1, 0
        self.shown[number, slot] = (step, seq)
        return self.make_code(number, slot, step, seq)

    def make_code(self, number: int, slot: int, step: int, seq: int) -> Code:
        device = self.model.devices.get((number, slot))
        generation = device.generation if device else 1
        key = derive_device_key(KEYRING.keys["k1"], DeviceId(DeviceKind.WALLET, number, slot), generation)
        text = payment_code.make(key, number, slot, step, seq)
        return Code(text, (number, slot), step, seq, generation)

    def send_batch(self, payment: records.Payment, moves: list[str], amount: int, wallet: int) -> None:
        """Send several requests about one payment in one batch. `wallet` is used for a payment without one."""
        self.commit()
        self.room = len(moves)
        terminal = self.till_of(payment)
        reference = payment.reference or self.new_reference()
        if payment.wallet is not None:
            wallet = self.ledger.wallets.index(payment.wallet)
        for move in moves:
            match move:
                case "right PIN" | "wrong PIN":
                    correct = move == "right PIN"
                    self.ask(self.make_confirm(payment, payment.wallet, payment.version, correct, 0))
                case "reject":
                    self.ask(Reject(payment.id, payment.merchant, payment.wallet or self.ledger.wallets[0], 0))
                case "cancel":
                    self.ask(self.make_cancel(terminal, payment.id, None))
                case "cancel the order":
                    self.ask(self.make_cancel(terminal, None, reference))
                case "scan its id":
                    self.scan(payment.id, terminal, reference, amount, self.fresh_code(wallet, 0))
                case "scan its order":
                    self.scan(self.new_id(), terminal, reference, amount, self.fresh_code(wallet, 0))
                case "expire":
                    self.ask(Expire(payment.id, payment.merchant))
                case "refund half" | "refund all":
                    part = max(1, payment.amount // (2 if move == "refund half" else 1))
                    refund_id = self.new_id(self.refund_ids)
                    self.ask(CreateRefund(refund_id, payment.id, payment.merchant, payment.terminal, part))

    def has_pending(self) -> bool:
        return any(payment.status == "pending" for payment in self.model.payments.values())

    def pending(self, recent: int) -> records.Payment:
        """Return a payment that waits for its PIN, or any other if there is none."""
        return self.preferably("pending", recent)

    def preferably(self, status: str, recent: int) -> records.Payment:
        payments = list(self.model.payments.values())
        return self.recent([payment for payment in payments if payment.status == status] or payments, recent)

    def new_id(self, ids: list[UUID] | None = None) -> UUID:
        self.ids += 1
        new = UUID(int=self.ids)
        (self.payment_ids if ids is None else ids).append(new)
        return new

    def new_reference(self) -> str:
        self.references.append(f"order-{len(self.references)}")
        return self.references[-1]

    @staticmethod
    def recent(items: list[Any], position: int) -> Any:
        return items[-1 - position % len(items)]

    def set_status(self, what: str, number: int, status: str) -> None:
        self.commit()
        active = status == "active"
        if what == "wallet":
            status = "frozen" if status == "off" else status
            self.model.wallets[number].status = status
        elif what == "terminal":
            status = "active" if active else "disabled"
            self.model.terminals[number].active = active
        else:
            status = "active" if active else "inactive"
            (self.model.inactive_merchants.discard if active else self.model.inactive_merchants.add)(number)
        self.ledger.set_status(what, number, status)

    # --- both sides

    def ask(self, operation: Operation, room: int | None = None, code: Code | None = None) -> None:
        """Send a request: the model answers now, the server when its batch is full."""
        if not self.batch and room is not None:
            self.room = room
        answer = self.answer_of_the_model(operation, code)
        note(f"{len(self.batch)}: {operation} -> {answer}")
        self.batch.append((operation, answer, code))
        self.requests.append((operation, code))
        if len(self.batch) >= self.room:
            self.commit()

    def answer_of_the_model(self, operation: Operation, code: Code | None) -> Answer:
        match operation:
            case Scan():
                assert code is not None
                return self.model.scan(
                    operation.payment_id,
                    operation.terminal_number,
                    operation.reference,
                    operation.amount_minor,
                    operation.currency,
                    code,
                    operation.entry is Entry.TYPED,
                    str(operation.purpose),
                )
            case MoveCash(payment_id, merchant, wallet, reference, amount, currency, purpose):
                return self.model.move_cash(payment_id, merchant, wallet, reference, amount, currency, str(purpose))
            case Confirm(payment_id, merchant, wallet, _, version, correct, generation):
                return self.model.confirm(payment_id, merchant, wallet, version, correct, generation)
            case Reject(payment_id, merchant, wallet):
                return self.model.reject(payment_id, merchant, wallet)
            case Cancel(int(terminal), _, _, named, order, tombstone_id):
                return self.model.cancel(terminal, named, order, tombstone_id)
            case CreateRefund(refund_id, payment_id, merchant, refunding_terminal, amount):
                return self.model.refund(refund_id, payment_id, merchant, refunding_terminal, amount)
            case Expire(payment_id, merchant):
                return self.model.expire(payment_id, merchant)

    def commit(self) -> None:
        """Decide and commit the batch, and compare its outcomes and rows with the model."""
        if not self.batch:
            return
        batch, self.batch = self.batch, []
        self.last_batch = [(operation, code) for operation, _, code in batch]
        self.agreed = False
        outcomes = self.ledger.decide([request[0] for request in batch], self.model.now, outrun=self.outrun)
        self.outrun = False
        for (operation, expected, _), outcome in zip(batch, outcomes, strict=True):
            assert answer_of_the_server(outcome) == expected, operation
            self.check_transition(outcome)
            self.met[expected.refused or expected.decline or str(expected.status)] += 1
        self.compare_rows()
        self.agreed = True

    def check_transition(self, outcome: Outcome) -> None:
        if isinstance(outcome, Refused):
            return
        payment = outcome.payment
        before = self.statuses.get(payment.key)
        assert payment.status is before or payment.status in TRANSITIONS[before], outcome
        self.statuses[payment.key] = payment.status

    def compare_rows(self) -> None:
        assert self.ledger.wallet_rows(self.model.now) == self.model.wallet_rows()
        assert self.ledger.payment_rows() == self.model.payment_rows()
        assert self.ledger.merchant_rows() == self.model.merchant_rows()
        assert self.ledger.spent_codes() == self.model.spent_codes()

    def teardown(self) -> None:
        if not self.agreed:
            return
        self.commit()
        self.compare_rows()
        self.ledger.audit()


def answer_of_the_server(outcome: Outcome) -> Answer:
    if isinstance(outcome, Refused):
        return Answer(str(outcome.code))
    payment, wallet = outcome.payment, outcome.wallet
    is_refund = isinstance(outcome, Refunded)
    return Answer(
        payment_id=payment.payment_id,
        merchant=payment.merchant_id,
        status=str(payment.status),
        decline=None if payment.decline_code is None else str(payment.decline_code),
        version=payment.version,
        reference=payment.reference,
        amount=payment.amount_minor,
        paid_by=payment.paid_by,
        refunded=payment.refunded_minor,
        wallet=payment.wallet_number,
        balance=None if wallet is None else wallet.balance_minor,
        tries_left=0 if is_refund else outcome.pin_tries_left,
        replayed=outcome.replayed,
        refund=(outcome.refund.refund_id, outcome.refund.amount_minor) if is_refund else None,
    )
