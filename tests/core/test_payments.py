"""decide(): which decline a scan gets and why, what spends a code, what a batch changes. Rows in, decisions out.

test_payments_model.py runs random histories against a second, simpler telling of the same rules.
"""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pos_server.core import payment_code
from pos_server.core.book import (
    Book,
    Changes,
    DeviceStatus,
    MerchantStatus,
    TerminalStatus,
    Till,
    Transfer,
    Wallet,
    WalletDevice,
    WalletStatus,
)
from pos_server.core.decide import decide
from pos_server.core.device_keys import DeviceId, DeviceKind, Keyring, derive_device_key
from pos_server.core.operations import Decided, Scan
from pos_server.core.payments import Decision, DeclineCode, IdReused, Payment, Status

QUICK = settings(max_examples=50, deadline=None)
STEP = 60_000_000
NOW_MS = STEP * 30_000 + 12_345
EXPIRED_STEPS = 20
MASTER_KEY = bytes(range(32))
KEYRING = Keyring({"k1": MASTER_KEY}, current="k1")
WALLET, OTHER_WALLET, UNKNOWN_WALLET = 1_000_000_001, 1_000_000_002, 1_000_000_003
TILL = Till(TerminalStatus.ACTIVE, MerchantStatus.ACTIVE, 500, "Corner Canteen", "Main hall")
OTHER_TILL = replace(TILL, merchant_account_id=600, merchant_name="Kiosk")
EARLIER = UUID(int=99)


def payment_id(number: int) -> UUID:
    return UUID(int=number)


def code(seq: int = 0, *, step: int = STEP, wallet: int = WALLET, slot: int = 0, generation: int = 1) -> str:
    key = derive_device_key(MASTER_KEY, DeviceId(DeviceKind.WALLET, wallet, slot), generation)
    return payment_code.make(key, wallet, slot, step, seq)


def forged(genuine: str) -> str:
    return genuine[:-1] + str((int(genuine[-1]) + 1) % 10)


def mark(seq: int = 0, *, step: int = STEP) -> int:
    return step * 10 + seq


def scan(number: int = 1, *, seq: int = 0, **fields: Any) -> Scan:
    """Payment `number`: 10.00 EUR for its own order, with the first wallet's code `seq` of this step."""
    plain = Scan(
        payment_id=payment_id(number),
        terminal_number=11,
        merchant_id=5,
        reference=f"order-{number}",
        amount_minor=1000,
        currency="EUR",
        code=code(seq),
    )
    return replace(plain, **fields)


def wallet(number: int = WALLET) -> Wallet:
    return Wallet(number, 900 + number % 10, "EUR", 10_000, WalletStatus.ACTIVE, 7)


def device(number: int = WALLET, slot: int = 0) -> WalletDevice:
    return WalletDevice(number, slot, "k1", 1, DeviceStatus.ACTIVE, 0)


def book() -> Book:
    """Two tills of merchant 5 and one of merchant 6; two wallets with 100.00 EUR, the first with two devices."""
    return Book(
        tills={11: TILL, 12: TILL, 21: OTHER_TILL},
        wallets={number: wallet(number) for number in (WALLET, OTHER_WALLET)},
        devices={key: device(*key) for key in ((WALLET, 0), (WALLET, 1), (OTHER_WALLET, 0))},
    )


def run(rows: Book, *scans: Scan, now_ms: int = NOW_MS) -> tuple[list[Decision], Changes]:
    return decide(scans, rows, KEYRING, now_ms, code_expired_steps=EXPIRED_STEPS)


def decided(decision: Decision) -> Decided:
    assert isinstance(decision, Decided)
    return decision


def verdicts(decisions: list[Decision]) -> list[str]:
    """Each decision in a word: approved, the decline code, or id_reused."""
    words = []
    for decision in decisions:
        if isinstance(decision, IdReused):
            words.append("id_reused")
        else:
            words.append(str(decision.payment.decline_code or decision.payment.status))
    return words


def spent_marks(rows: Book) -> dict[tuple[int, int], int]:
    return {key: found.spent_mark for key, found in rows.devices.items() if found.spent_mark}


# --- one scan, in full


def test_an_approved_payment() -> None:
    rows = book()
    paid = scan(1, amount_minor=1234)
    decisions, changes = run(rows, paid)

    payment = Payment(
        payment_id=payment_id(1),
        fingerprint=paid.fingerprint,
        terminal_number=11,
        merchant_id=5,
        wallet_number=WALLET,
        reference="order-1",
        amount_minor=1234,
        currency="EUR",
        status=Status.APPROVED,
        decline_code=None,
        paid_by=None,
        version=1,
        changed_at_ms=NOW_MS,
    )
    after = Wallet(WALLET, 901, "EUR", 8_766, WalletStatus.ACTIVE, 8)
    spent = WalletDevice(WALLET, 0, "k1", 1, DeviceStatus.ACTIVE, mark(0))
    assert decisions == [Decided(paid, payment, TILL, after)]
    assert changes == Changes(
        payments=[payment],
        transfers=[Transfer(payment_id(1), 901, 500, 1234, "EUR", WALLET)],
        wallets={WALLET: after},
        wallet_versions={WALLET: 7},
        devices={(WALLET, 0): spent},
    )
    expected = book()
    expected.wallets[WALLET] = after
    expected.devices[WALLET, 0] = spent
    expected.payments[payment_id(1)] = payment
    expected.open_payments[5, "order-1"] = payment_id(1)
    assert rows == expected


def test_a_declined_payment_of_a_known_wallet() -> None:
    rows = book()
    refused = scan(1, amount_minor=10_001)
    decisions, changes = run(rows, refused)

    payment = Payment(
        payment_id=payment_id(1),
        fingerprint=refused.fingerprint,
        terminal_number=11,
        merchant_id=5,
        wallet_number=WALLET,
        reference="order-1",
        amount_minor=10_001,
        currency="EUR",
        status=Status.DECLINED,
        decline_code=DeclineCode.INSUFFICIENT_FUNDS,
        paid_by=None,
        version=1,
        changed_at_ms=NOW_MS,
    )
    after = replace(wallet(), version=8)
    assert decisions == [Decided(refused, payment, TILL, after)]
    assert changes == Changes(
        payments=[payment],
        wallets={WALLET: after},
        wallet_versions={WALLET: 7},
        devices={(WALLET, 0): replace(device(), spent_mark=mark(0))},
    )
    assert rows.open_payments == {}


def test_a_declined_payment_of_nobody() -> None:
    rows = book()
    refused = scan(1, code=forged(code()))
    decisions, changes = run(rows, refused)

    payment = Payment(
        payment_id=payment_id(1),
        fingerprint=refused.fingerprint,
        terminal_number=11,
        merchant_id=5,
        wallet_number=None,
        reference="order-1",
        amount_minor=1000,
        currency="EUR",
        status=Status.DECLINED,
        decline_code=DeclineCode.CODE_INVALID,
        paid_by=None,
        version=1,
        changed_at_ms=NOW_MS,
    )
    assert decisions == [Decided(refused, payment, TILL, None)]
    assert changes == Changes(payments=[payment])
    assert rows == replace(book(), payments={payment_id(1): payment})


def test_an_empty_batch() -> None:
    decisions, changes = run(book())
    assert (decisions, changes) == ([], Changes())
    assert not changes


# --- why: every decline and its causes

Cause = Callable[["Situation"], None]


@dataclass
class Situation:
    """A scan that would be approved, until causes are applied to it."""

    till: Till = TILL
    wallet: Wallet = field(default_factory=wallet)
    device: WalletDevice = field(default_factory=device)
    paid: bool = False
    step: int = STEP
    typed_after: str = ""

    def decide(self) -> tuple[Decided, Changes]:
        rows = Book({11: self.till}, {WALLET: self.wallet}, {(WALLET, 0): self.device})
        if self.paid:
            rows.open_payments[5, "order-1"] = EARLIER
        decisions, changes = run(rows, scan(code=code(step=self.step) + self.typed_after))
        return decided(decisions[0]), changes


def terminal_disabled(situation: Situation) -> None:
    situation.till = replace(situation.till, terminal_status=TerminalStatus.DISABLED)


def merchant_inactive(situation: Situation) -> None:
    situation.till = replace(situation.till, merchant_status=MerchantStatus.INACTIVE)


def code_malformed(situation: Situation) -> None:
    situation.typed_after = "\n"


def code_invalid(situation: Situation) -> None:
    situation.device = replace(situation.device, status=DeviceStatus.REVOKED)


def code_expired(situation: Situation) -> None:
    situation.step = STEP - 2


def code_used(situation: Situation) -> None:
    situation.device = replace(situation.device, spent_mark=mark(0))


def already_paid(situation: Situation) -> None:
    situation.paid = True


def wallet_frozen(situation: Situation) -> None:
    situation.wallet = replace(situation.wallet, status=WalletStatus.FROZEN)


def wallet_closed(situation: Situation) -> None:
    situation.wallet = replace(situation.wallet, status=WalletStatus.CLOSED)


def currency_mismatch(situation: Situation) -> None:
    situation.wallet = replace(situation.wallet, currency="USD")


def insufficient_funds(situation: Situation) -> None:
    situation.wallet = replace(situation.wallet, balance_minor=999)


# In order of precedence. Any set of them can apply to one scan, but a wallet has only one status.
CAUSES: list[Cause] = [
    terminal_disabled,
    merchant_inactive,
    code_malformed,
    code_invalid,
    code_expired,
    code_used,
    already_paid,
    wallet_frozen,
    wallet_closed,
    currency_mismatch,
    insufficient_funds,
]
NAMES_NO_WALLET = [terminal_disabled, merchant_inactive, code_malformed, code_invalid]
EXCLUSIVE = {wallet_frozen, wallet_closed}


def test_the_documented_precedence() -> None:
    assert [str(code) for code in DeclineCode] == [cause.__name__ for cause in CAUSES]


def test_without_a_cause_a_scan_is_approved() -> None:
    outcome, changes = Situation().decide()
    assert outcome.payment.status is Status.APPROVED
    assert len(changes.transfers) == 1


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_every_cause_has_its_decline(cause: Cause) -> None:
    situation = Situation()
    cause(situation)
    outcome, changes = situation.decide()

    assert outcome.payment.status is Status.DECLINED
    assert outcome.payment.decline_code == cause.__name__
    assert outcome.payment.paid_by == (EARLIER if cause is already_paid else None)
    assert changes.payments == [outcome.payment]
    assert changes.transfers == []
    if cause in NAMES_NO_WALLET:
        assert (outcome.wallet, outcome.payment.wallet_number) == (None, None)
        assert (changes.wallets, changes.wallet_versions, changes.devices) == ({}, {}, {})
    else:
        after = replace(situation.wallet, version=8)
        assert (outcome.wallet, outcome.payment.wallet_number) == (after, WALLET)
        assert (changes.wallets, changes.wallet_versions) == ({WALLET: after}, {WALLET: 7})
        assert changes.devices == {(WALLET, 0): replace(situation.device, spent_mark=mark(0, step=situation.step))}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param(earlier, later, id=f"{earlier.__name__} before {later.__name__}")
        for earlier, later in itertools.combinations(CAUSES, 2)
        if {earlier, later} != EXCLUSIVE
    ],
)
def test_precedence(earlier: Cause, later: Cause) -> None:
    situation = Situation()
    later(situation)
    earlier(situation)
    outcome, _ = situation.decide()
    assert outcome.payment.decline_code == earlier.__name__


def test_of_any_set_of_causes_the_first_is_given() -> None:
    for count in range(2, len(CAUSES)):
        for causes in itertools.combinations(CAUSES, count):
            if EXCLUSIVE.issubset(causes):
                continue
            situation = Situation()
            for cause in causes:
                cause(situation)
            outcome, _ = situation.decide()
            assert outcome.payment.decline_code == causes[0].__name__, causes


@pytest.mark.parametrize(
    ("scanned", "verdict"),
    [
        pytest.param("", "code_malformed", id="nothing"),
        pytest.param("4006381333931", "code_malformed", id="a product's EAN"),
        pytest.param("https://example.com/pay", "code_malformed", id="a link"),
        pytest.param(code()[:-1], "code_malformed", id="23 digits"),
        pytest.param(code() + "0", "code_malformed", id="25 digits"),
        pytest.param("88" + code()[2:], "code_malformed", id="another prefix"),
        pytest.param("770999999999" + code()[12:], "code_malformed", id="impossible wallet number"),
        pytest.param(code()[:-1] + "\u0661", "code_malformed", id="Arabic digit"),
        pytest.param("\0" * 24, "code_malformed", id="NULs"),
        pytest.param("7" * 4000, "code_malformed", id="4000 digits"),
        pytest.param(forged(code()), "code_invalid", id="wrong MAC"),
        pytest.param(code(wallet=UNKNOWN_WALLET), "code_invalid", id="unknown wallet"),
        pytest.param(code(slot=5), "code_invalid", id="unknown slot"),
        pytest.param(code(generation=2), "code_invalid", id="key of another generation"),
        pytest.param(f"77{OTHER_WALLET}" + code()[12:], "code_invalid", id="another wallet's number"),
        pytest.param(code()[:12] + "1" + code()[13:], "code_invalid", id="another slot's number"),
        pytest.param(code()[:13] + "1" + code()[14:], "code_invalid", id="another seq"),
        pytest.param(code(step=STEP + 2), "code_invalid", id="two steps ahead"),
        pytest.param(code(step=STEP + 1), "approved", id="one step ahead"),
        pytest.param(code(step=STEP), "approved", id="this step"),
        pytest.param(code(9, step=STEP), "approved", id="last seq of this step"),
        pytest.param(code(step=STEP - 1), "approved", id="one step ago"),
        pytest.param(code(step=STEP - 2), "code_expired", id="two steps ago"),
        pytest.param(code(step=STEP - 21), "code_expired", id="as old as is looked for"),
        pytest.param(code(step=STEP - 22), "code_invalid", id="older"),
    ],
)
def test_codes(scanned: str, verdict: str) -> None:
    decisions, _ = run(book(), scan(code=scanned))
    assert verdicts(decisions) == [verdict]


def test_a_code_made_with_a_terminals_key_is_forged() -> None:
    key = derive_device_key(MASTER_KEY, DeviceId(DeviceKind.TERMINAL, WALLET), 1)
    decisions, _ = run(book(), scan(code=payment_code.make(key, WALLET, 0, STEP, 0)))
    assert verdicts(decisions) == ["code_invalid"]


def test_a_device_whose_master_key_is_retired_cannot_pay() -> None:
    rows = book()
    rows.devices[WALLET, 0] = replace(device(), kid="k0")
    assert verdicts(run(rows, scan())[0]) == ["code_invalid"]


def test_a_device_without_its_wallet_row_cannot_pay() -> None:
    rows = book()
    del rows.wallets[WALLET]
    assert verdicts(run(rows, scan())[0]) == ["code_invalid"]


@pytest.mark.parametrize(
    ("into_step_ms", "step", "verdict"),
    [
        (0, STEP - 1, "approved"),
        (0, STEP - 2, "code_expired"),
        (29_999, STEP - 1, "approved"),
        (30_000, STEP - 1, "code_expired"),
        (29_999, STEP + 2, "code_invalid"),
        (30_000, STEP + 2, "approved"),
    ],
)
def test_a_step_turns_on_its_millisecond(into_step_ms: int, step: int, verdict: str) -> None:
    decisions, _ = run(book(), scan(code=code(step=step)), now_ms=STEP * 30_000 + into_step_ms)
    assert verdicts(decisions) == [verdict]


@pytest.mark.parametrize(
    ("amount_minor", "verdict", "balance_minor"),
    [
        (1, "approved", 9_999),
        (9_999, "approved", 1),
        (10_000, "approved", 0),
        (10_001, "insufficient_funds", 10_000),
        (2**53 - 1, "insufficient_funds", 10_000),
    ],
)
def test_a_wallet_can_be_emptied_and_no_more(amount_minor: int, verdict: str, balance_minor: int) -> None:
    rows = book()
    decisions, _ = run(rows, scan(amount_minor=amount_minor))
    assert verdicts(decisions) == [verdict]
    assert rows.wallets[WALLET].balance_minor == balance_minor


@pytest.mark.parametrize(
    "bad_code",
    [forged(code()), code(wallet=UNKNOWN_WALLET), code(slot=5), code(generation=2), code(step=STEP + 2)],
    ids=["forged", "unknown wallet", "unknown device", "revoked generation", "far ahead"],
)
def test_forged_and_unknown_look_the_same(bad_code: str) -> None:
    def seen(scanned: str) -> tuple[Decided, Changes, Book]:
        """Everything that comes out, without the code that went in."""
        rows = book()
        (decision,), changes = run(rows, scan(code=scanned))
        outcome = decided(decision)
        payment = replace(outcome.payment, fingerprint=b"")
        changes.payments, rows.payments = [payment], {payment.payment_id: payment}
        return Decided(scan(code=""), payment, outcome.till, outcome.wallet, outcome.replayed), changes, rows

    assert seen(bad_code) == seen(forged(code(wallet=OTHER_WALLET)))


# --- what spends a code


@pytest.mark.parametrize(
    ("first", "first_verdict", "second_verdict"),
    [
        pytest.param(scan(1), "approved", "code_used", id="approved"),
        pytest.param(scan(1, amount_minor=10_001), "insufficient_funds", "code_used", id="insufficient_funds"),
        pytest.param(scan(1, currency="USD"), "currency_mismatch", "code_used", id="currency_mismatch"),
        pytest.param(scan(1, reference="order-paid"), "already_paid", "code_used", id="already_paid"),
        pytest.param(scan(1, terminal_number=13), "terminal_disabled", "approved", id="terminal_disabled"),
        pytest.param(scan(1, terminal_number=14), "merchant_inactive", "approved", id="merchant_inactive"),
        pytest.param(scan(1, code=code() + "0"), "code_malformed", "approved", id="code_malformed"),
        pytest.param(scan(1, code=forged(code())), "code_invalid", "approved", id="code_invalid"),
        pytest.param(scan(1, code=forged(code(9))), "code_invalid", "approved", id="code_invalid, later seq"),
        pytest.param(scan(1, code=code(step=STEP - 2)), "code_expired", "approved", id="code_expired, earlier step"),
        pytest.param(scan(1, code=code(9, step=STEP - 1)), "approved", "approved", id="approved, earlier step"),
        pytest.param(scan(1, code=code(1)), "approved", "code_used", id="approved, later seq"),
        pytest.param(scan(1, code=code(step=STEP + 1)), "approved", "code_used", id="approved, later step"),
        pytest.param(scan(1, code=code(1, slot=1)), "approved", "approved", id="approved, another device"),
        pytest.param(scan(1, code=code(1, wallet=OTHER_WALLET)), "approved", "approved", id="approved, another wallet"),
    ],
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_what_spends_a_code(first: Scan, first_verdict: str, second_verdict: str, batches: int) -> None:
    rows = book()
    rows.tills[13] = replace(TILL, terminal_status=TerminalStatus.DISABLED)
    rows.tills[14] = replace(TILL, merchant_status=MerchantStatus.INACTIVE)
    rows.open_payments[5, "order-paid"] = EARLIER
    second = scan(2, amount_minor=1)
    if batches == 1:
        decisions, _ = run(rows, first, second)
    else:
        decisions = run(rows, first)[0] + run(rows, second)[0]
    assert verdicts(decisions) == [first_verdict, second_verdict]


@pytest.mark.parametrize("status", [WalletStatus.FROZEN, WalletStatus.CLOSED])
def test_a_wallet_that_may_not_pay_still_spends_its_code(status: WalletStatus) -> None:
    rows = book()
    rows.wallets[WALLET] = replace(wallet(), status=status)
    assert verdicts(run(rows, scan(1))[0]) == [f"wallet_{status}"]
    rows.wallets[WALLET] = replace(rows.wallets[WALLET], status=WalletStatus.ACTIVE)
    assert verdicts(run(rows, scan(2), scan(3, seq=1))[0]) == ["code_used", "approved"]


def test_an_expired_code_is_spent_too() -> None:
    """Once: an earlier server time, on another machine, must not find it fresh."""
    rows = book()
    old = code(3, step=STEP - 2)
    decisions, changes = run(rows, scan(1, code=old))
    assert verdicts(decisions) == ["code_expired"]
    assert changes.devices[WALLET, 0].spent_mark == mark(3, step=STEP - 2)
    assert verdicts(run(rows, scan(2, code=old), now_ms=NOW_MS - 30_000)[0]) == ["code_used"]


def test_an_expired_code_does_not_unspend_newer_ones() -> None:
    rows = book()
    decisions, changes = run(rows, scan(1, seq=4), scan(2, code=code(9, step=STEP - 5)), scan(3, seq=4))
    assert verdicts(decisions) == ["approved", "code_expired", "code_used"]
    assert changes.devices[WALLET, 0].spent_mark == mark(4)


def test_a_used_code_does_not_unspend_newer_ones() -> None:
    rows = book()
    decisions, _ = run(rows, scan(1, seq=4), scan(2, seq=2), scan(3, seq=4), scan(4, seq=5))
    assert verdicts(decisions) == ["approved", "code_used", "code_used", "approved"]
    assert spent_marks(rows) == {(WALLET, 0): mark(5)}


def test_all_codes_of_a_step_can_be_used_in_order() -> None:
    rows = book()
    decisions, _ = run(rows, *(scan(seq + 1, seq=seq, amount_minor=1) for seq in range(10)))
    assert verdicts(decisions) == ["approved"] * 10


def test_an_expired_code_that_was_used_is_called_expired() -> None:
    rows = book()
    old = code(step=STEP - 1)
    decisions = run(rows, scan(1, code=old))[0] + run(rows, scan(2, code=old), now_ms=NOW_MS + 30_000)[0]
    assert verdicts(decisions) == ["approved", "code_expired"]


# --- a batch sees itself


def test_one_code_scanned_at_two_tills_pays_once() -> None:
    rows = book()
    decisions, changes = run(rows, scan(1), scan(2, terminal_number=21, merchant_id=6))
    assert verdicts(decisions) == ["approved", "code_used"]
    assert [transfer.source_id for transfer in changes.transfers] == [payment_id(1)]


def test_two_payments_cannot_spend_the_same_money() -> None:
    rows = book()
    decisions, changes = run(
        rows,
        scan(1, seq=0, amount_minor=6_000),
        scan(2, seq=1, amount_minor=4_001),
        scan(3, code=code(slot=1), amount_minor=4_000),
        scan(4, seq=2, amount_minor=1),
    )
    assert verdicts(decisions) == ["approved", "insufficient_funds", "approved", "insufficient_funds"]
    assert [decided(decision).wallet for decision in decisions] == [
        replace(wallet(), balance_minor=4_000, version=8),
        replace(wallet(), balance_minor=4_000, version=9),
        replace(wallet(), balance_minor=0, version=10),
        replace(wallet(), balance_minor=0, version=11),
    ]
    assert changes.wallets == {WALLET: replace(wallet(), balance_minor=0, version=11)}
    assert changes.wallet_versions == {WALLET: 7}
    assert changes.devices == {
        (WALLET, 0): replace(device(), spent_mark=mark(2)),
        (WALLET, 1): replace(device(slot=1), spent_mark=mark(0)),
    }
    assert [(transfer.source_id, transfer.amount_minor) for transfer in changes.transfers] == [
        (payment_id(1), 6_000),
        (payment_id(3), 4_000),
    ]


def test_the_guard_is_the_version_that_was_loaded() -> None:
    rows = book()
    assert run(rows, scan(1, seq=0), scan(2, seq=1))[1].wallet_versions == {WALLET: 7}
    both = run(rows, scan(3, seq=2), scan(4, code=code(wallet=OTHER_WALLET)))[1]
    assert both.wallet_versions == {WALLET: 9, OTHER_WALLET: 7}
    assert {number: found.version for number, found in both.wallets.items()} == {WALLET: 10, OTHER_WALLET: 8}


def test_only_what_was_touched_is_written() -> None:
    rows = book()
    changes = run(rows, scan(1, code=code(wallet=OTHER_WALLET)), scan(2, code=forged(code())))[1]
    assert list(changes.wallets) == list(changes.wallet_versions) == [OTHER_WALLET]
    assert list(changes.devices) == [(OTHER_WALLET, 0)]
    assert rows.wallets[WALLET] == wallet()


@pytest.mark.parametrize(
    ("second", "verdict", "paid_by"),
    [
        pytest.param({}, "already_paid", payment_id(1), id="same till"),
        pytest.param({"terminal_number": 12}, "already_paid", payment_id(1), id="another till"),
        pytest.param({"amount_minor": 1}, "already_paid", payment_id(1), id="another amount"),
        pytest.param({"code": code(wallet=OTHER_WALLET)}, "already_paid", payment_id(1), id="another wallet"),
        pytest.param({"reference": "ORDER-1"}, "approved", None, id="another reference"),
        pytest.param({"terminal_number": 21, "merchant_id": 6}, "approved", None, id="another merchant"),
    ],
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_an_order_is_paid_once(second: dict[str, Any], verdict: str, paid_by: UUID | None, batches: int) -> None:
    rows = book()
    scans = [scan(1), scan(2, seq=1, **({"reference": "order-1"} | second))]
    if batches == 1:
        decisions, _ = run(rows, *scans)
    else:
        decisions = run(rows, scans[0])[0] + run(rows, scans[1])[0]
    assert verdicts(decisions) == ["approved", verdict]
    assert decided(decisions[1]).payment.paid_by == paid_by


def test_a_declined_order_may_be_tried_again() -> None:
    rows = book()
    decisions, _ = run(
        rows,
        scan(1, seq=0, reference="order", amount_minor=20_000),
        scan(2, seq=1, reference="order"),
        scan(3, seq=2, reference="order"),
    )
    assert verdicts(decisions) == ["insufficient_funds", "approved", "already_paid"]
    assert decided(decisions[2]).payment.paid_by == payment_id(2)
    assert rows.open_payments == {(5, "order"): payment_id(2)}


def test_merchants_are_credited_on_their_own_accounts() -> None:
    changes = run(book(), scan(1), scan(2, seq=1, terminal_number=21, merchant_id=6))[1]
    assert changes.transfers == [
        Transfer(payment_id(1), 901, 500, 1000, "EUR", WALLET),
        Transfer(payment_id(2), 901, 600, 1000, "EUR", WALLET),
    ]


# --- the same id again


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        pytest.param(scan(1), "approved", id="approved"),
        pytest.param(scan(1, amount_minor=10_001), "insufficient_funds", id="declined"),
        pytest.param(scan(1, code=forged(code())), "code_invalid", id="forged"),
    ],
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_the_same_id_and_body_get_the_same_payment(first: Scan, verdict: str, batches: int) -> None:
    rows = book()
    if batches == 1:
        (decision, again), changes = run(rows, first, copy.deepcopy(first))
        assert len(changes.payments) == 1
        assert len(changes.transfers) == (verdict == "approved")
    else:
        (decision,), _ = run(rows, first)
        before = copy.deepcopy(rows)
        (again,), changes = run(rows, copy.deepcopy(first), now_ms=NOW_MS + 86_400_000)
        assert changes == Changes()
        assert not changes
        assert rows == before
    assert verdicts([decision]) == [verdict]
    assert again == replace(decided(decision), replayed=True)


def test_a_replay_is_answered_whatever_has_changed_since() -> None:
    """The stored answer, for ever: not that the till is disabled now, nor that the code is old."""
    rows = book()
    (first,), _ = run(rows, scan(1))
    rows.tills[11] = replace(TILL, terminal_status=TerminalStatus.DISABLED, merchant_status=MerchantStatus.INACTIVE)
    rows.wallets[WALLET] = replace(wallet(), status=WalletStatus.CLOSED, balance_minor=5, version=40)
    rows.devices.clear()
    before = copy.deepcopy(rows)
    (again,), changes = run(rows, scan(1), now_ms=NOW_MS + 10**9)
    assert again == Decided(scan(1), decided(first).payment, rows.tills[11], rows.wallets[WALLET], replayed=True)
    assert changes == Changes()
    assert rows == before


def test_a_replay_shows_the_wallet_as_it_is_now() -> None:
    rows = book()
    decisions, _ = run(rows, scan(1, seq=0), scan(2, seq=1), scan(1, seq=0))
    assert decided(decisions[2]).wallet == replace(wallet(), balance_minor=8_000, version=9)
    assert decided(decisions[2]).payment == decided(decisions[0]).payment


def test_a_replay_whose_wallet_is_not_loaded() -> None:
    rows = book()
    (first,), _ = run(rows, scan(1))
    rows.wallets.clear()
    (again,), _ = run(rows, scan(1))
    assert again == replace(decided(first), wallet=None, replayed=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"terminal_number": 12},
        {"terminal_number": 21, "merchant_id": 6},
        {"reference": "order-2"},
        {"amount_minor": 1001},
        {"currency": "USD"},
        {"code": code(1)},
        {"code": ""},
    ],
    ids=lambda changed: ", ".join(changed),
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_the_same_id_with_another_body_changes_nothing(changed: dict[str, Any], batches: int) -> None:
    other = scan(1, **changed)
    only, alone = book(), book()
    _, expected_changes = run(alone, scan(1))
    if batches == 1:
        (first, second), changes = run(only, scan(1), other)
        assert changes == expected_changes
    else:
        (first,), _ = run(only, scan(1))
        (second,), changes = run(only, other)
        assert changes == Changes()
    assert verdicts([first]) == ["approved"]
    assert second == IdReused(other)
    assert only == alone


def test_an_id_reused_spends_no_code() -> None:
    rows = book()
    decisions, _ = run(rows, scan(1), scan(1, seq=1), scan(2, seq=1))
    assert verdicts(decisions) == ["approved", "id_reused", "approved"]


def test_decisions_come_in_the_order_of_the_scans() -> None:
    scans = [scan(1), scan(1, seq=1), scan(1), scan(2, code="x"), scan(3, seq=1)]
    decisions, _ = run(book(), *scans)
    assert [decision.scan for decision in decisions] == scans
    assert verdicts(decisions) == ["approved", "id_reused", "approved", "code_malformed", "approved"]


def test_the_same_input_has_the_same_output() -> None:
    scans = [scan(1), scan(2, seq=0), scan(3, seq=1, amount_minor=9_500), scan(1), scan(4, code="x")]
    results = []
    for _ in range(3):
        rows = book()
        results.append((run(rows, *copy.deepcopy(scans)), rows))
    assert results[0] == results[1] == results[2]


# --- the scan itself


def test_a_scan_is_printed_without_its_code() -> None:
    text = repr(scan())
    assert code() not in text
    assert "reference='order-1'" in text


def test_a_payment_is_printed_without_its_fingerprint() -> None:
    (outcome,), _ = run(book(), scan())
    assert repr(decided(outcome).payment.fingerprint) not in repr(outcome)
    assert code() not in repr(outcome)


def test_fingerprint() -> None:
    """SHA-256 of the body's fields, joined by unit separators; computed apart."""
    assert scan(code="7" * 24).fingerprint.hex() == "940b46e676611f921918bdc7f7aae4a5"
    assert scan(code="7" * 24, payment_id=payment_id(2)).fingerprint == scan(code="7" * 24).fingerprint


# What the wire lets through: printable references without a separator; a code may be any text.
SCANS = st.builds(
    Scan,
    payment_id=st.just(payment_id(1)),
    terminal_number=st.integers(1, 12),
    merchant_id=st.integers(1, 12),
    reference=st.from_regex(r"[!-~]{1,2}", fullmatch=True),
    amount_minor=st.integers(1, 12),
    currency=st.sampled_from(["EUR", "USD"]),
    code=st.text(alphabet="1\x1f", max_size=3),
)


@QUICK
@given(SCANS, SCANS)
def test_bodies_are_told_apart(first: Scan, second: Scan) -> None:
    assert len(first.fingerprint) == 16
    assert (first.fingerprint == second.fingerprint) == (first == second)
