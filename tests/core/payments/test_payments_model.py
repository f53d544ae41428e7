"""Random histories of scans: decide(), in batches, against a model that knows no batches, nor limits, nor PINs.

The model is told what every code is instead of computing it, keeps plain dicts, and looks at one scan at a time.
decide() runs twice, each time with the history cut elsewhere: once with one Snapshot kept throughout, and once as the
server does it, with a Snapshot loaded for every batch from a store that only a Changeset is written to. tests/model/
does the same for the whole life of a payment, with Postgres.
"""

import copy
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from hypothesis import event, given, settings
from hypothesis import strategies as st

from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind, Keyring, derive_device_key
from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import Decided, Outcome, Refused, Scan
from pos_server.core.payments.payment import Payment, Status
from pos_server.core.payments.rules import Limits, Rules
from pos_server.core.payments.snapshot import (
    Acceptor,
    Changeset,
    DeviceStatus,
    MerchantStatus,
    OpenPayment,
    Snapshot,
    TerminalStatus,
    Transfer,
    Wallet,
    WalletDevice,
    WalletStatus,
)
from tests.copies import replace

FIRST_STEP = 60_000_000
EXPIRED_STEPS = 4
MASTER_KEY = bytes(range(32))
KEYRING = Keyring({"k1": MASTER_KEY}, current="k1")
RULES = Rules(Limits(*[2**53 - 1] * 5), code_expired_steps=EXPIRED_STEPS)

# --- the world

MERCHANT_OF = {11: 5, 12: 5, 13: 5, 21: 6, 31: 7}
DISABLED_TERMINAL, INACTIVE_MERCHANT = 13, 7
WALLETS = {
    number: Wallet(number, 900 + number % 10, currency, balance_minor, status, 1)
    for number, currency, balance_minor, status in (
        (1_000_000_001, "EUR", 3_000, WalletStatus.ACTIVE),
        (1_000_000_002, "EUR", 500, WalletStatus.ACTIVE),
        (1_000_000_003, "USD", 1_000, WalletStatus.ACTIVE),
        (1_000_000_004, "EUR", 1_000, WalletStatus.FROZEN),
        (1_000_000_005, "EUR", 1_000, WalletStatus.CLOSED),
    )
}
REVOKED = (1_000_000_002, 1)
DEVICES = [(number, 0) for number in WALLETS] + [(1_000_000_001, 1), REVOKED]
UNKNOWN = [(1_000_000_001, 7), (1_000_000_009, 0)]
# What histories draw from: mostly what can be approved.
SHOWN_DEVICES = [(1_000_000_001, 0), (1_000_000_002, 0)] * 4 + DEVICES
SCANNING_TERMINALS = [11, 12, 21] * 4 + list(MERCHANT_OF)


def tills() -> dict[int, Acceptor]:
    return {
        terminal: Acceptor(
            TerminalStatus.DISABLED if terminal == DISABLED_TERMINAL else TerminalStatus.ACTIVE,
            MerchantStatus.INACTIVE if merchant == INACTIVE_MERCHANT else MerchantStatus.ACTIVE,
            500 + merchant,
            f"Merchant {merchant}",
            "Main hall",
        )
        for terminal, merchant in MERCHANT_OF.items()
    }


def devices() -> dict[tuple[int, int], WalletDevice]:
    return {
        (number, slot): WalletDevice(
            number, slot, "k1", 1, DeviceStatus.REVOKED if (number, slot) == REVOKED else DeviceStatus.ACTIVE, 0
        )
        for number, slot in DEVICES
    }


# --- histories


class Code(NamedTuple):
    """What the till scanned, and what the model is told of it."""

    text: str
    device: tuple[int, int] | None
    step: int
    seq: int


@dataclass(frozen=True)
class Attempt:
    scan: Scan
    code: Code
    now_step: int

    @property
    def now_ms(self) -> int:
        return self.now_step * 30_000 + 12_345


def make_code(device: tuple[int, int], step: int, seq: int, spoiled: str) -> Code:
    """`spoiled` is how a code is no code of its device any more: malformed, forged, or not ("")."""
    key = derive_device_key(MASTER_KEY, DeviceId(DeviceKind.WALLET, *device), 1)
    text = payment_code.make(key, *device, step, seq)
    if spoiled == "malformed":
        return Code(text[:-1], None, step, seq)
    if spoiled == "forged":
        return Code(text[:-1] + str((int(text[-1]) + 1) % 10), device, -1, seq)
    return Code(text, device, step, seq)


@st.composite
def histories(draw: st.DrawFn) -> list[Attempt]:
    """Scans in the order of their arrival, while the time goes on now and then."""
    attempts: list[Attempt] = []
    now_step = FIRST_STEP
    shown: dict[tuple[int, int], tuple[int, int]] = {}
    for number in range(draw(st.integers(1, 25))):
        now_step += draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2]))
        kind = draw(st.sampled_from(["fresh", "fresh", "fresh", "any", "any", "again", "id reused", "code reused"]))
        earlier = draw(st.sampled_from(attempts)) if attempts else None
        if kind == "again" and earlier is not None:
            attempts.append(replace(earlier, now_step=now_step))
            continue
        device = draw(st.sampled_from(SHOWN_DEVICES if kind == "fresh" else SHOWN_DEVICES + UNKNOWN))
        if kind == "code reused" and earlier is not None:
            code = earlier.code
        elif kind == "fresh":
            step, seq = shown.get(device, (0, 0))
            shown[device] = (now_step, seq + 1 if step == now_step and seq < 9 else 0)
            code = make_code(device, *shown[device], "")
        else:
            step = now_step + draw(st.integers(-EXPIRED_STEPS - 2, 2))
            spoiled = draw(st.sampled_from(["", "", "", "forged", "malformed"]))
            code = make_code(device, step, draw(st.integers(0, 3)), spoiled)
        terminal = draw(st.sampled_from(SCANNING_TERMINALS))
        reuses_id = kind == "id reused" and earlier is not None
        scan = Scan(
            payment_id=earlier.scan.payment_id if reuses_id and earlier else UUID(int=number + 1),
            terminal_number=terminal,
            merchant_id=MERCHANT_OF[terminal],
            reference=draw(st.sampled_from("abcdef")),
            amount_minor=draw(st.sampled_from([1, 300, 500, 1_200])),
            currency=draw(st.sampled_from(["EUR"] * 6 + ["USD"])),
            code=code.text,
        )
        attempts.append(Attempt(scan, code, now_step))
    return attempts


def batches(attempts: Sequence[Attempt], cuts: Iterable[int]) -> list[list[Attempt]]:
    """The history cut before some positions, and wherever the time changed: a batch has one time."""
    edges = set(cuts) | {0, len(attempts)}
    edges |= {i for i in range(1, len(attempts)) if attempts[i].now_step != attempts[i - 1].now_step}
    ordered = sorted(edge for edge in edges if edge <= len(attempts))
    return [list(attempts[start:end]) for start, end in itertools.pairwise(ordered)]


CUTS = st.sets(st.integers(1, 24))

# --- the model


class Answer(NamedTuple):
    """A decision, as far as the model tells it."""

    verdict: str
    wallet: int | None = None
    balance_minor: int | None = None
    paid_by: UUID | None = None
    replayed: bool = False


class Model:
    def __init__(self) -> None:
        self.balances = {number: wallet.balance_minor for number, wallet in WALLETS.items()}
        self.spent: dict[tuple[int, int], tuple[int, int]] = {}
        self.paid: dict[tuple[int, str], UUID] = {}
        self.answers: dict[UUID, tuple[Scan, Answer]] = {}

    def answer(self, attempt: Attempt) -> Answer:
        scan = attempt.scan
        if scan.payment_id not in self.answers:
            answer = self._new(attempt)
            self.answers[scan.payment_id] = (scan, answer)
            return answer
        stored, answer = self.answers[scan.payment_id]
        if stored != scan:
            return Answer("id_reused")
        balance = None if answer.wallet is None else self.balances[answer.wallet]
        return answer._replace(balance_minor=balance, replayed=True)

    def _new(self, attempt: Attempt) -> Answer:
        scan, code = attempt.scan, attempt.code
        if scan.terminal_number == DISABLED_TERMINAL:
            return Answer("terminal_disabled")
        if scan.merchant_id == INACTIVE_MERCHANT:
            return Answer("merchant_inactive")
        if code.device is None:
            return Answer("code_malformed")
        age = attempt.now_step - code.step
        if code.device == REVOKED or code.device not in DEVICES or not -1 <= age <= 1 + EXPIRED_STEPS:
            return Answer("code_invalid")

        number = code.device[0]
        wallet = WALLETS[number]
        last = self.spent.get(code.device, (0, 0))
        self.spent[code.device] = max(last, (code.step, code.seq))
        paid_by = self.paid.get((scan.merchant_id, scan.reference))
        reasons = {
            "code_expired": age > 1,
            "code_used": (code.step, code.seq) <= last,
            "already_paid": paid_by is not None,
            "wallet_frozen": wallet.status == "frozen",
            "wallet_closed": wallet.status == "closed",
            "currency_mismatch": wallet.currency != scan.currency,
            "insufficient_funds": self.balances[number] < scan.amount_minor,
        }
        verdict = next((reason for reason, applies in reasons.items() if applies), "approved")
        if verdict == "approved":
            self.balances[number] -= scan.amount_minor
            self.paid[scan.merchant_id, scan.reference] = scan.payment_id
        return Answer(verdict, number, self.balances[number], paid_by if verdict == "already_paid" else None)


def told(decision: Outcome) -> Answer:
    if isinstance(decision, Refused):
        return Answer(str(decision.code))
    assert isinstance(decision, Decided)
    payment, wallet = decision.payment, decision.wallet
    assert payment.wallet_number == (None if wallet is None else wallet.number)
    assert (payment.status is Status.APPROVED) == (payment.decline_code is None)
    return Answer(
        str(payment.decline_code or payment.status),
        payment.wallet_number,
        None if wallet is None else wallet.balance_minor,
        payment.paid_by,
        decision.replayed,
    )


# --- decide() in batches


@dataclass
class Rows:
    """What a database would hold, written to by `Changeset` alone."""

    wallets: dict[int, Wallet] = field(default_factory=lambda: dict(WALLETS))
    devices: dict[tuple[int, int], WalletDevice] = field(default_factory=devices)
    payments: dict[UUID, Payment] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)

    def load(self, scans: Sequence[Scan]) -> Snapshot:
        """A Snapshot with the rows that these scans need, and no others."""
        snapshot = Snapshot()
        for scan in scans:
            snapshot.terminals[scan.terminal_number] = tills()[scan.terminal_number]
            code = payment_code.parse(scan.code)
            if code is not None:
                device = (code.wallet_number, code.slot)
                snapshot.wallets |= {n: wallet for n, wallet in self.wallets.items() if n == code.wallet_number}
                snapshot.devices |= {key: found for key, found in self.devices.items() if key == device}
            snapshot.payments |= {key: found for key, found in self.payments.items() if key == scan.payment_id}
            order = (scan.merchant_id, scan.reference)
            snapshot.open_payments |= {key: found for key, found in self.open_payments.items() if key == order}
        return snapshot

    @property
    def open_payments(self) -> dict[tuple[int, str], OpenPayment]:
        return {
            (payment.merchant_id, payment.reference): OpenPayment(payment.payment_id, payment.status)
            for payment in self.payments.values()
            if payment.status is Status.APPROVED and payment.reference is not None
        }

    def apply(self, changes: Changeset) -> None:
        """Write a batch, as strict as a database's constraints."""
        assert changes.wallets.keys() == changes.wallet_versions.keys()
        for number, wallet in changes.wallets.items():
            assert self.wallets[number].version == changes.wallet_versions[number] < wallet.version
            assert wallet.balance_minor >= 0
            self.wallets[number] = wallet
        for device, row in changes.devices.items():
            assert row.spent_mark >= self.devices[device].spent_mark
            self.devices[device] = row
        assert changes.payment_versions == dict.fromkeys(changes.payments, 0)
        for payment in changes.payments.values():
            assert payment.payment_id not in self.payments
            assert (
                payment.status is Status.DECLINED or (payment.merchant_id, payment.reference) not in self.open_payments
            )
            self.payments[payment.payment_id] = payment
        self.transfers += changes.transfers


def run(snapshot: Snapshot, batch: list[Attempt]) -> tuple[list[Outcome], Changeset]:
    """decide(), and a second time on a deep copy, which must not be different in anything."""
    scans, now_ms = [attempt.scan for attempt in batch], batch[0].now_ms
    twin_book, twin_scans = copy.deepcopy((snapshot, scans))
    result = decide(scans, snapshot, KEYRING, now_ms, RULES, day_start_ms=0)
    twin = decide(twin_scans, twin_book, KEYRING, now_ms, RULES, day_start_ms=0)
    assert (result, snapshot) == (twin, twin_book)
    return result


def run_with_kept_book(cut: list[list[Attempt]]) -> tuple[list[Outcome], Rows]:
    snapshot, rows = Snapshot(tills(), dict(WALLETS), devices()), Rows()
    decisions: list[Outcome] = []
    for batch in cut:
        decided, changes = run(snapshot, batch)
        rows.apply(changes)
        decisions += decided
    assert (snapshot.wallets, snapshot.devices, snapshot.payments) == (rows.wallets, rows.devices, rows.payments)
    assert snapshot.open_payments == rows.open_payments
    return decisions, rows


def run_with_loaded_books(cut: list[list[Attempt]]) -> tuple[list[Outcome], Rows]:
    rows = Rows()
    decisions: list[Outcome] = []
    for batch in cut:
        decided, changes = run(rows.load([attempt.scan for attempt in batch]), batch)
        rows.apply(changes)
        decisions += decided
    return decisions, rows


@settings(max_examples=120)
@given(histories(), CUTS, CUTS)
def test_batches_agree_with_a_model_of_one_scan_at_a_time(
    attempts: list[Attempt], cuts: set[int], other_cuts: set[int]
) -> None:
    model = Model()
    expected = [model.answer(attempt) for attempt in attempts]
    decisions, rows = run_with_kept_book(batches(attempts, cuts))
    other_decisions, other_rows = run_with_loaded_books(batches(attempts, other_cuts))
    for answer in expected:
        event(answer.verdict + (", replayed" if answer.replayed else ""))

    assert [told(decision) for decision in decisions] == expected
    assert {number: wallet.balance_minor for number, wallet in rows.wallets.items()} == model.balances
    assert {order: found.payment_id for order, found in rows.open_payments.items()} == model.paid
    assert {key: divmod(row.spent_mark, 10) for key, row in rows.devices.items() if row.spent_mark} == model.spent

    assert decisions == other_decisions
    assert rows == other_rows


@settings(max_examples=60)
@given(histories(), CUTS)
def test_money_is_conserved_and_nothing_happens_twice(attempts: list[Attempt], cuts: set[int]) -> None:
    _, rows = run_with_kept_book(batches(attempts, cuts))
    approved = [payment for payment in rows.payments.values() if payment.status is Status.APPROVED]
    first_attempts = {attempt.scan.payment_id: attempt for attempt in reversed(attempts)}
    assert rows.payments.keys() == first_attempts.keys()

    assert [transfer.source_id for transfer in rows.transfers] == [payment.payment_id for payment in approved]
    for transfer, payment in zip(rows.transfers, approved, strict=True):
        scan = first_attempts[payment.payment_id].scan
        assert transfer.amount_minor == payment.amount_minor == scan.amount_minor > 0
        assert transfer.currency == payment.currency == WALLETS[transfer.wallet_number].currency
        assert transfer.wallet_number == payment.wallet_number
        assert transfer.debit_account_id == WALLETS[transfer.wallet_number].account_id
        assert transfer.credit_account_id == 500 + scan.merchant_id
    for number, wallet in rows.wallets.items():
        moved = sum(transfer.amount_minor for transfer in rows.transfers if transfer.wallet_number == number)
        assert wallet.balance_minor + moved == WALLETS[number].balance_minor
        assert wallet.balance_minor >= 0

    orders = [(payment.merchant_id, payment.reference) for payment in approved]
    assert len(set(orders)) == len(orders)
    for device in DEVICES:
        codes = [first_attempts[payment.payment_id].code for payment in approved]
        accepted = [(code.step, code.seq) for code in codes if code.device == device]
        assert accepted == sorted(set(accepted)), "each code once, and never an older one after a newer"
