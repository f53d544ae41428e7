"""decide() of scans: which decline a scan gets and why, what spends a code, what is written. Rows in, outcomes out.

tests/model/ runs random histories against a second, simpler telling of the same rules.
"""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind, derive_device_key
from pos_server.core.errors import ErrorCode
from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import Decided, Entry, Refused, Scan
from pos_server.core.payments.payment import DeclineCode, Payment, Status
from pos_server.core.payments.rules import Risk, Rules
from pos_server.core.payments.snapshot import (
    Acceptor,
    Changeset,
    DeviceStatus,
    MerchantStatus,
    OpenPayment,
    Snapshot,
    TerminalStatus,
    Transfer,
    TransferKind,
    Wallet,
    WalletDevice,
    WalletStatus,
)
from tests.copies import replace
from tests.core.payments.deciding import (
    ACCEPTOR,
    ASKING,
    DAY_MS,
    DAY_START_MS,
    KEYRING,
    MASTER_KEY,
    NOW_MS,
    OTHER_WALLET,
    STEP,
    UNKNOWN_WALLET,
    WALLET,
    WIDE,
    after,
    cancel,
    code,
    decided,
    device,
    forged,
    mark,
    payment_id,
    run,
    scan,
    snapshot,
    verdicts,
    wallet,
)

EARLIER = UUID(int=99)


def spent_marks(rows: Snapshot) -> dict[tuple[int, int], int]:
    return {key: found.spent_mark for key, found in rows.devices.items() if found.spent_mark}


# --- one scan, in full


def test_an_approved_payment() -> None:
    rows = snapshot()
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
        approved_at_ms=NOW_MS,
    )
    left = replace(
        wallet(),
        balance_minor=8_766,
        version=8,
        day_spent_minor=1234,
        day_pin_free_minor=1234,
        day_pin_free_count=1,
    )
    spent = WalletDevice(WALLET, 0, "k1", 1, DeviceStatus.ACTIVE, mark(0))
    assert decisions == [Decided(paid, payment, ACCEPTOR, left)]
    assert changes == Changeset(
        payments={payment_id(1): payment},
        payment_versions={payment_id(1): 0},
        transfers=[Transfer(TransferKind.PAYMENT, payment_id(1), 901, 500, 1234, "EUR", WALLET)],
        wallets={WALLET: left},
        wallet_versions={WALLET: 7},
        devices={(WALLET, 0): spent},
    )
    expected = snapshot()
    expected.wallets[WALLET] = left
    expected.devices[WALLET, 0] = spent
    expected.payments[payment_id(1)] = payment
    expected.open_payments[5, "order-1"] = OpenPayment(payment_id(1), Status.APPROVED)
    assert rows == expected


def test_a_declined_payment_of_a_known_wallet() -> None:
    rows = snapshot()
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
    left = replace(wallet(), version=8)
    assert decisions == [Decided(refused, payment, ACCEPTOR, left)]
    assert changes == Changeset(
        payments={payment_id(1): payment},
        payment_versions={payment_id(1): 0},
        wallets={WALLET: left},
        wallet_versions={WALLET: 7},
        devices={(WALLET, 0): replace(device(), spent_mark=mark(0))},
    )
    assert rows.open_payments == {}


def test_a_declined_payment_of_nobody() -> None:
    rows = snapshot()
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
    assert decisions == [Decided(refused, payment, ACCEPTOR, None)]
    assert changes == Changeset({payment_id(1): payment}, {payment_id(1): 0})
    assert rows == replace(snapshot(), payments={payment_id(1): payment})


def test_an_empty_batch() -> None:
    decisions, changes = run(snapshot())
    assert (decisions, changes) == ([], Changeset())
    assert not changes


# --- why: every decline and its causes

Cause = Callable[["Situation"], None]


@dataclass
class Situation:
    """A scan that would be approved, until causes are applied to it."""

    till: Acceptor = ACCEPTOR
    wallet: Wallet = field(default_factory=wallet)
    device: WalletDevice = field(default_factory=device)
    occupant: Status | None = None
    canceled: bool = False
    step: int = STEP
    typed_after: str = ""
    rules: Rules = WIDE

    def decide(self) -> tuple[Decided, Changeset]:
        rows = Snapshot({11: self.till}, {WALLET: self.wallet}, {(WALLET, 0): self.device})
        if self.canceled:
            earlier = Snapshot({11: ACCEPTOR})
            run(earlier, cancel(1))
            rows.payments |= earlier.payments
        if self.occupant is not None:
            rows.open_payments[5, "order-1"] = OpenPayment(EARLIER, self.occupant)
        outcomes, changes = run(rows, scan(code=code(step=self.step) + self.typed_after), rules=self.rules)
        return decided(outcomes[0]), changes


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


def canceled(situation: Situation) -> None:
    situation.canceled = True


def already_paid(situation: Situation) -> None:
    situation.occupant = Status.APPROVED


def already_pending(situation: Situation) -> None:
    situation.occupant = Status.PENDING


def wallet_frozen(situation: Situation) -> None:
    situation.wallet = replace(situation.wallet, status=WalletStatus.FROZEN)


def wallet_closed(situation: Situation) -> None:
    situation.wallet = replace(situation.wallet, status=WalletStatus.CLOSED)


def currency_mismatch(situation: Situation) -> None:
    situation.wallet = replace(situation.wallet, currency="USD")


def amount_over_limit(situation: Situation) -> None:
    situation.rules = replace(situation.rules, limits=replace(situation.rules.limits, payment_minor_max=999))


def daily_limit(situation: Situation) -> None:
    situation.rules = replace(situation.rules, limits=replace(situation.rules.limits, day_minor_max=1_499))
    situation.wallet = replace(situation.wallet, day_spent_minor=500)


def insufficient_funds(situation: Situation) -> None:
    situation.wallet = replace(situation.wallet, balance_minor=999)


def risk_rejected(situation: Situation) -> None:
    situation.rules = replace(situation.rules, risk=lambda scan, wallet: Risk.REJECT)


def pin_locked(situation: Situation) -> None:
    situation.rules = replace(situation.rules, limits=replace(situation.rules.limits, pin_free_minor_max=999))
    situation.wallet = replace(situation.wallet, pin_locked_until_ms=NOW_MS + 1)


# In order of precedence. Any set of them can apply to one scan, but for those that exclude each other.
CAUSES: list[Cause] = [
    terminal_disabled,
    merchant_inactive,
    code_malformed,
    code_invalid,
    code_expired,
    code_used,
    canceled,
    already_paid,
    already_pending,
    wallet_frozen,
    wallet_closed,
    currency_mismatch,
    amount_over_limit,
    daily_limit,
    insufficient_funds,
    risk_rejected,
    pin_locked,
]
NAMES_NO_WALLET = [terminal_disabled, merchant_inactive, code_malformed, code_invalid]
NAMES_THE_OTHER = [already_paid, already_pending]
EXCLUSIVE = [{wallet_frozen, wallet_closed}, {already_paid, already_pending}]


def exclude_each_other(*causes: Cause) -> bool:
    return any(pair.issubset(causes) for pair in EXCLUSIVE)


def test_the_documented_precedence() -> None:
    not_of_a_sale = {"balance_limit", "pin_wrong", "customer_rejected"}
    assert [str(code) for code in DeclineCode if code not in not_of_a_sale] == [cause.__name__ for cause in CAUSES]


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
    assert outcome.payment.paid_by == (EARLIER if cause in NAMES_THE_OTHER else None)
    assert (outcome.payment.approved_at_ms, outcome.payment.expires_at_ms) == (None, None)
    assert changes.payments == {payment_id(1): outcome.payment}
    assert changes.payment_versions == {payment_id(1): 1 if cause is canceled else 0}
    assert changes.transfers == []
    if cause in NAMES_NO_WALLET:
        assert (outcome.wallet, outcome.payment.wallet_number) == (None, None)
        assert (changes.wallets, changes.wallet_versions, changes.devices) == ({}, {}, {})
    else:
        left = replace(situation.wallet, version=8)
        assert (outcome.wallet, outcome.payment.wallet_number) == (left, WALLET)
        assert (changes.wallets, changes.wallet_versions) == ({WALLET: left}, {WALLET: 7})
        assert changes.devices == {(WALLET, 0): replace(situation.device, spent_mark=mark(0, step=situation.step))}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param(earlier, later, id=f"{earlier.__name__} before {later.__name__}")
        for earlier, later in itertools.combinations(CAUSES, 2)
        if not exclude_each_other(earlier, later)
    ],
)
def test_precedence(earlier: Cause, later: Cause) -> None:
    situation = Situation()
    later(situation)
    earlier(situation)
    outcome, _ = situation.decide()
    assert outcome.payment.decline_code == earlier.__name__


def test_of_any_set_of_causes_the_first_is_given() -> None:
    for count in (3, 4, len(CAUSES) - 3, len(CAUSES) - 2):
        for causes in itertools.combinations(CAUSES, count):
            if exclude_each_other(*causes):
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
    decisions, _ = run(snapshot(), scan(code=scanned))
    assert verdicts(decisions) == [verdict]


def test_a_code_made_with_a_terminals_key_is_forged() -> None:
    key = derive_device_key(MASTER_KEY, DeviceId(DeviceKind.TERMINAL, WALLET), 1)
    decisions, _ = run(snapshot(), scan(code=payment_code.make(key, WALLET, 0, STEP, 0)))
    assert verdicts(decisions) == ["code_invalid"]


def test_a_device_whose_master_key_is_retired_cannot_pay() -> None:
    rows = snapshot()
    rows.devices[WALLET, 0] = replace(device(), kid="k0")
    assert verdicts(run(rows, scan())[0]) == ["code_invalid"]


def test_a_device_without_its_wallet_row_cannot_pay() -> None:
    rows = snapshot()
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
    decisions, _ = run(snapshot(), scan(code=code(step=step)), now_ms=STEP * 30_000 + into_step_ms)
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
    rows = snapshot()
    decisions, _ = run(rows, scan(amount_minor=amount_minor))
    assert verdicts(decisions) == [verdict]
    assert rows.wallets[WALLET].balance_minor == balance_minor


@pytest.mark.parametrize(
    "bad_code",
    [forged(code()), code(wallet=UNKNOWN_WALLET), code(slot=5), code(generation=2), code(step=STEP + 2)],
    ids=["forged", "unknown wallet", "unknown device", "revoked generation", "far ahead"],
)
def test_forged_and_unknown_look_the_same(bad_code: str) -> None:
    def seen(scanned: str) -> tuple[Decided, Changeset, Snapshot]:
        """Everything that comes out, without the code that went in."""
        rows = snapshot()
        (decision,), changes = run(rows, scan(code=scanned))
        outcome = decided(decision)
        payment = replace(outcome.payment, fingerprint=b"")
        changes.payments = rows.payments = {payment.payment_id: payment}
        return Decided(scan(code=""), payment, outcome.acceptor, outcome.wallet, outcome.replayed), changes, rows

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
    rows = snapshot()
    rows.terminals[13] = replace(ACCEPTOR, terminal_status=TerminalStatus.DISABLED)
    rows.terminals[14] = replace(ACCEPTOR, merchant_status=MerchantStatus.INACTIVE)
    rows.open_payments[5, "order-paid"] = OpenPayment(EARLIER, Status.APPROVED)
    second = scan(2, amount_minor=1)
    if batches == 1:
        decisions, _ = run(rows, first, second)
    else:
        decisions = run(rows, first)[0] + run(rows, second)[0]
    assert verdicts(decisions) == [first_verdict, second_verdict]


@pytest.mark.parametrize("status", [WalletStatus.FROZEN, WalletStatus.CLOSED])
def test_a_wallet_that_may_not_pay_still_spends_its_code(status: WalletStatus) -> None:
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), status=status)
    assert verdicts(run(rows, scan(1))[0]) == [f"wallet_{status}"]
    rows.wallets[WALLET] = replace(rows.wallets[WALLET], status=WalletStatus.ACTIVE)
    assert verdicts(run(rows, scan(2), scan(3, seq=1))[0]) == ["code_used", "approved"]


def test_an_expired_code_is_spent_too() -> None:
    """Once: an earlier server time, on another machine, must not find it fresh."""
    rows = snapshot()
    old = code(3, step=STEP - 2)
    decisions, changes = run(rows, scan(1, code=old))
    assert verdicts(decisions) == ["code_expired"]
    assert changes.devices[WALLET, 0].spent_mark == mark(3, step=STEP - 2)
    assert verdicts(run(rows, scan(2, code=old), now_ms=NOW_MS - 30_000)[0]) == ["code_used"]


def test_an_expired_code_does_not_unspend_newer_ones() -> None:
    rows = snapshot()
    decisions, changes = run(rows, scan(1, seq=4), scan(2, code=code(9, step=STEP - 5)), scan(3, seq=4))
    assert verdicts(decisions) == ["approved", "code_expired", "code_used"]
    assert changes.devices[WALLET, 0].spent_mark == mark(4)


def test_a_used_code_does_not_unspend_newer_ones() -> None:
    rows = snapshot()
    decisions, _ = run(rows, scan(1, seq=4), scan(2, seq=2), scan(3, seq=4), scan(4, seq=5))
    assert verdicts(decisions) == ["approved", "code_used", "code_used", "approved"]
    assert spent_marks(rows) == {(WALLET, 0): mark(5)}


def test_all_codes_of_a_step_can_be_used_in_order() -> None:
    rows = snapshot()
    decisions, _ = run(rows, *(scan(seq + 1, seq=seq, amount_minor=1) for seq in range(10)))
    assert verdicts(decisions) == ["approved"] * 10


def test_an_expired_code_that_was_used_is_called_expired() -> None:
    rows = snapshot()
    old = code(step=STEP - 1)
    decisions = run(rows, scan(1, code=old))[0] + run(rows, scan(2, code=old), now_ms=NOW_MS + 30_000)[0]
    assert verdicts(decisions) == ["approved", "code_expired"]


# --- a batch sees itself


def test_one_code_scanned_at_two_tills_pays_once() -> None:
    rows = snapshot()
    decisions, changes = run(rows, scan(1), scan(2, terminal_number=21, merchant_id=6))
    assert verdicts(decisions) == ["approved", "code_used"]
    assert [transfer.source_id for transfer in changes.transfers] == [payment_id(1)]


def test_two_payments_cannot_spend_the_same_money() -> None:
    rows = snapshot()
    decisions, changes = run(
        rows,
        scan(1, seq=0, amount_minor=6_000),
        scan(2, seq=1, amount_minor=4_001),
        scan(3, code=code(slot=1), amount_minor=4_000),
        scan(4, seq=2, amount_minor=1),
    )
    assert verdicts(decisions) == ["approved", "insufficient_funds", "approved", "insufficient_funds"]
    assert [decided(decision).wallet for decision in decisions] == [
        after(8, 6_000),
        after(9, 6_000),
        after(10, 6_000, 4_000),
        after(11, 6_000, 4_000),
    ]
    assert changes.wallets == {WALLET: after(11, 6_000, 4_000)}
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
    rows = snapshot()
    assert run(rows, scan(1, seq=0), scan(2, seq=1))[1].wallet_versions == {WALLET: 7}
    both = run(rows, scan(3, seq=2), scan(4, code=code(wallet=OTHER_WALLET)))[1]
    assert both.wallet_versions == {WALLET: 9, OTHER_WALLET: 7}
    assert {number: found.version for number, found in both.wallets.items()} == {WALLET: 10, OTHER_WALLET: 8}


def test_only_what_was_touched_is_written() -> None:
    rows = snapshot()
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
    rows = snapshot()
    scans = [scan(1), scan(2, seq=1, **({"reference": "order-1"} | second))]
    if batches == 1:
        decisions, _ = run(rows, *scans)
    else:
        decisions = run(rows, scans[0])[0] + run(rows, scans[1])[0]
    assert verdicts(decisions) == ["approved", verdict]
    assert decided(decisions[1]).payment.paid_by == paid_by


def test_a_declined_order_may_be_tried_again() -> None:
    rows = snapshot()
    decisions, _ = run(
        rows,
        scan(1, seq=0, reference="order", amount_minor=20_000),
        scan(2, seq=1, reference="order"),
        scan(3, seq=2, reference="order"),
    )
    assert verdicts(decisions) == ["insufficient_funds", "approved", "already_paid"]
    assert decided(decisions[2]).payment.paid_by == payment_id(2)
    assert rows.open_payments == {(5, "order"): OpenPayment(payment_id(2), Status.APPROVED)}


def test_merchants_are_credited_on_their_own_accounts() -> None:
    changes = run(snapshot(), scan(1), scan(2, seq=1, terminal_number=21, merchant_id=6))[1]
    assert changes.transfers == [
        Transfer(TransferKind.PAYMENT, payment_id(1), 901, 500, 1000, "EUR", WALLET),
        Transfer(TransferKind.PAYMENT, payment_id(2), 901, 600, 1000, "EUR", WALLET),
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
    rows = snapshot()
    if batches == 1:
        (decision, again), changes = run(rows, first, copy.deepcopy(first))
        assert len(changes.payments) == 1
        assert len(changes.transfers) == (verdict == "approved")
    else:
        (decision,), _ = run(rows, first)
        before = copy.deepcopy(rows)
        (again,), changes = run(rows, copy.deepcopy(first), now_ms=NOW_MS + 86_400_000)
        assert changes == Changeset()
        assert not changes
        assert rows == before
    assert verdicts([decision]) == [verdict]
    assert again == replace(decided(decision), replayed=True)


def test_a_replay_is_answered_whatever_has_changed_since() -> None:
    """The stored answer, for ever: not that the till is disabled now, nor that the code is old."""
    rows = snapshot()
    (first,), _ = run(rows, scan(1))
    rows.terminals[11] = replace(
        ACCEPTOR, terminal_status=TerminalStatus.DISABLED, merchant_status=MerchantStatus.INACTIVE
    )
    rows.wallets[WALLET] = replace(wallet(), status=WalletStatus.CLOSED, balance_minor=5, version=40)
    rows.devices.clear()
    before = copy.deepcopy(rows)
    (again,), changes = run(rows, scan(1), now_ms=NOW_MS + 10**9)
    assert again == Decided(scan(1), decided(first).payment, rows.terminals[11], rows.wallets[WALLET], replayed=True)
    assert changes == Changeset()
    assert rows == before


def test_a_replay_shows_the_wallet_as_it_is_now() -> None:
    rows = snapshot()
    decisions, _ = run(rows, scan(1, seq=0), scan(2, seq=1), scan(1, seq=0))
    assert decided(decisions[2]).wallet == after(9, 1_000, 1_000)
    assert decided(decisions[2]).payment == decided(decisions[0]).payment


def test_a_replay_whose_wallet_is_not_loaded() -> None:
    rows = snapshot()
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
        {"entry": Entry.TYPED},
        {"code": ""},
    ],
    ids=lambda changed: ", ".join(changed),
)
@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_the_same_id_with_another_body_changes_nothing(changed: dict[str, Any], batches: int) -> None:
    other = scan(1, **changed)
    only, alone = snapshot(), snapshot()
    _, expected_changes = run(alone, scan(1))
    if batches == 1:
        (first, second), changes = run(only, scan(1), other)
        assert changes == expected_changes
    else:
        (first,), _ = run(only, scan(1))
        (second,), changes = run(only, other)
        assert changes == Changeset()
    assert verdicts([first]) == ["approved"]
    assert second == Refused(other, ErrorCode.ID_REUSED)
    assert only == alone


def test_an_id_reused_spends_no_code() -> None:
    rows = snapshot()
    decisions, _ = run(rows, scan(1), scan(1, seq=1), scan(2, seq=1))
    assert verdicts(decisions) == ["approved", "id_reused", "approved"]


def test_decisions_come_in_the_order_of_the_scans() -> None:
    scans = [scan(1), scan(1, seq=1), scan(1), scan(2, code="x"), scan(3, seq=1)]
    decisions, _ = run(snapshot(), *scans)
    assert [decision.operation for decision in decisions] == scans
    assert verdicts(decisions) == ["approved", "id_reused", "approved", "code_malformed", "approved"]


def test_the_same_input_has_the_same_output() -> None:
    scans = [scan(1), scan(2, seq=0), scan(3, seq=1, amount_minor=9_500), scan(1), scan(4, code="x")]
    results = []
    for _ in range(3):
        rows = snapshot()
        results.append((run(rows, *copy.deepcopy(scans)), rows))
    assert results[0] == results[1] == results[2]


# --- limits, and payments without a PIN


def limited(**limits: int) -> Rules:
    return replace(WIDE, limits=replace(WIDE.limits, **limits))


@pytest.mark.parametrize(
    ("limits", "of_today", "amount_minor", "verdict"),
    [
        pytest.param({"payment_minor_max": 1_000}, {}, 1_000, "approved", id="the largest payment"),
        pytest.param({"payment_minor_max": 1_000}, {}, 1_001, "amount_over_limit", id="a larger one"),
        pytest.param({"day_minor_max": 3_000}, {"day_spent_minor": 2_000}, 1_000, "approved", id="the rest of a day"),
        pytest.param({"day_minor_max": 3_000}, {"day_spent_minor": 2_000}, 1_001, "daily_limit", id="more than that"),
        pytest.param({"pin_free_minor_max": 1_000}, {}, 1_000, "approved", id="the largest without a PIN"),
        pytest.param({"pin_free_minor_max": 1_000}, {}, 1_001, "pending", id="larger: a PIN"),
        pytest.param({"pin_free_minor_max": 0}, {}, 1, "pending", id="always a PIN"),
        pytest.param(
            {"pin_free_day_count_max": 2}, {"day_pin_free_count": 1}, 1, "approved", id="the last without a PIN"
        ),
        pytest.param({"pin_free_day_count_max": 2}, {"day_pin_free_count": 2}, 1, "pending", id="one more: a PIN"),
        pytest.param(
            {"pin_free_day_minor_max": 3_000}, {"day_pin_free_minor": 2_000}, 1_000, "approved", id="the day's rest"
        ),
        pytest.param(
            {"pin_free_day_minor_max": 3_000}, {"day_pin_free_minor": 2_000}, 1_001, "pending", id="more: a PIN"
        ),
    ],
)
def test_limits(limits: dict[str, int], of_today: dict[str, int], amount_minor: int, verdict: str) -> None:
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), **of_today)
    outcomes, _ = run(rows, scan(amount_minor=amount_minor), rules=limited(**limits))
    assert verdicts(outcomes) == [verdict]
    # Yesterday's counts are no more, and a currency may have limits of its own.
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), day_start_ms=DAY_START_MS - 1, **of_today)
    rules = replace(limited(payment_minor_max=0), currency_limits={"EUR": limited(**limits).limits})
    outcomes, _ = run(rows, scan(amount_minor=1), rules=rules)
    assert verdicts(outcomes) == ["pending" if limits == {"pin_free_minor_max": 0} else "approved"]


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_a_batch_counts_what_came_before(batches: int) -> None:
    rules = limited(pin_free_day_count_max=2, pin_free_day_minor_max=500, day_minor_max=1_000)
    scans = [scan(n, seq=n, amount_minor=amount) for n, amount in enumerate([400, 101, 100, 1, 501], start=1)]
    rows = snapshot()
    if batches == 1:
        outcomes, _ = run(rows, *scans, rules=rules)
    else:
        outcomes = run(rows, *scans[:2], rules=rules)[0] + run(rows, *scans[2:], rules=rules)[0]
    assert verdicts(outcomes) == ["approved", "pending", "approved", "pending", "daily_limit"]
    assert rows.wallets[WALLET] == after(12, 400, 100)


def test_a_new_day_counts_anew() -> None:
    rules = limited(day_minor_max=1_000)
    rows = snapshot()
    midnight = DAY_START_MS + DAY_MS
    step = midnight // 30_000
    late, early = code(step=step - 1), code(1, step=step)
    before = run(rows, scan(1, code=late), scan(2, code=code(1, step=step - 1)), now_ms=midnight - 1, rules=rules)[0]
    assert verdicts(before) == ["approved", "daily_limit"]
    assert rows.wallets[WALLET] == after(9, 1_000)
    assert verdicts(run(rows, scan(3, code=early), now_ms=midnight, rules=rules)[0]) == ["approved"]
    assert rows.wallets[WALLET] == replace(after(10, 1_000), balance_minor=8_000, day_start_ms=midnight)


def test_the_business_day_begins_when_it_is_said_to() -> None:
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), day_start_ms=NOW_MS - 1, day_spent_minor=1)
    for day_start_ms, spent_minor in ((NOW_MS - 1, 1_001), (NOW_MS, 1_000)):
        _, changes = decide(
            [scan()], copy.deepcopy(rows), KEYRING, NOW_MS, WIDE, day_start_ms=day_start_ms
        )  # fmt: skip
        assert changes.wallets[WALLET].day_spent_minor == spent_minor
        assert changes.wallets[WALLET].day_start_ms == day_start_ms


# --- what needs the PIN


def test_a_payment_that_waits_for_its_pin() -> None:
    rows = snapshot()
    large = scan(1, amount_minor=1_001)
    outcomes, changes = run(rows, large, rules=ASKING)
    payment = Payment(
        payment_id=payment_id(1),
        fingerprint=large.fingerprint,
        terminal_number=11,
        merchant_id=5,
        wallet_number=WALLET,
        reference="order-1",
        amount_minor=1_001,
        currency="EUR",
        status=Status.PENDING,
        decline_code=None,
        paid_by=None,
        version=1,
        changed_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 60_000,
    )
    left = replace(wallet(), version=8)
    assert outcomes == [Decided(large, payment, ACCEPTOR, left, pin_tries_left=3)]
    assert changes == Changeset(
        payments={payment_id(1): payment},
        payment_versions={payment_id(1): 0},
        wallets={WALLET: left},
        wallet_versions={WALLET: 7},
        devices={(WALLET, 0): replace(device(), spent_mark=mark(0))},
    )
    assert rows.open_payments == {(5, "order-1"): OpenPayment(payment_id(1), Status.PENDING)}


@pytest.mark.parametrize(
    ("entry", "risk", "verdict"),
    [
        (Entry.SCANNED, Risk.ACCEPT, "approved"),
        (Entry.SCANNED, Risk.ASK_PIN, "pending"),
        (Entry.SCANNED, Risk.REJECT, "risk_rejected"),
        (Entry.TYPED, Risk.ACCEPT, "pending"),
        (Entry.TYPED, Risk.ASK_PIN, "pending"),
        (Entry.TYPED, Risk.REJECT, "risk_rejected"),
    ],
)
def test_typed_codes_and_the_risk_hook(entry: Entry, risk: Risk, verdict: str) -> None:
    rules = replace(WIDE, risk=lambda scan, wallet: risk)
    outcomes, _ = run(snapshot(), scan(entry=entry), rules=rules)
    assert verdicts(outcomes) == [verdict]


def test_the_risk_hook_sees_the_scan_and_the_wallet_of_today() -> None:
    seen = []

    def hook(scan: Scan, wallet: Wallet) -> Risk:
        seen.append((scan, wallet))
        return Risk.ACCEPT

    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), day_start_ms=0, day_spent_minor=5)
    too_much, forgery = scan(2, seq=1, amount_minor=10_001), scan(3, code=forged(code()))
    run(rows, scan(1), too_much, forgery, rules=replace(WIDE, risk=hook))
    # Only of what would be approved without it.
    assert seen == [(scan(1), wallet())]


@pytest.mark.parametrize(
    ("locked_until_ms", "verdict"),
    [(NOW_MS - 1, "pending"), (NOW_MS, "pending"), (NOW_MS + 1, "pin_locked")],
)
def test_a_locked_pin_declines_only_what_needs_it(locked_until_ms: int, verdict: str) -> None:
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), pin_locked_until_ms=locked_until_ms)
    outcomes, _ = run(rows, scan(1, amount_minor=1_001), scan(2, seq=1), rules=ASKING)
    assert verdicts(outcomes) == [verdict, "approved"]


def test_an_order_that_waits_for_a_pin_takes_no_second_scan() -> None:
    outcomes, _ = run(snapshot(), scan(1, amount_minor=1_001), scan(2, seq=1, reference="order-1"), rules=ASKING)
    assert verdicts(outcomes) == ["pending", "already_pending"]
    assert decided(outcomes[1]).payment.paid_by == payment_id(1)


def test_a_scan_sent_again_while_it_waits_shows_what_is_left() -> None:
    rows = snapshot()
    large = scan(1, amount_minor=1_001)
    (first,), _ = run(rows, large, rules=ASKING)
    (again,), changes = run(rows, large, now_ms=NOW_MS + 59_000, rules=ASKING)
    assert again == replace(decided(first), replayed=True)
    assert changes == Changeset()


# --- scans that come after their cancel


def test_a_late_scan_of_a_canceled_id() -> None:
    rows = snapshot()
    run(rows, cancel(1, terminal=12))
    late = scan(1)
    outcomes, changes = run(rows, late, now_ms=NOW_MS + 1)
    payment = Payment(
        payment_id=payment_id(1),
        fingerprint=late.fingerprint,
        terminal_number=11,
        merchant_id=5,
        wallet_number=WALLET,
        reference="order-1",
        amount_minor=1_000,
        currency="EUR",
        status=Status.DECLINED,
        decline_code=DeclineCode.CANCELED,
        paid_by=None,
        version=2,
        changed_at_ms=NOW_MS + 1,
    )
    left = replace(wallet(), version=8)
    assert outcomes == [Decided(late, payment, ACCEPTOR, left)]
    assert changes == Changeset(
        payments={payment_id(1): payment},
        payment_versions={payment_id(1): 1},
        wallets={WALLET: left},
        wallet_versions={WALLET: 7},
        devices={(WALLET, 0): replace(device(), spent_mark=mark(0))},
    )
    # The id was canceled, the order was not.
    assert verdicts(run(rows, scan(1), scan(1, amount_minor=1), scan(2, seq=1, reference="order-1"))[0]) == [
        "canceled",
        "id_reused",
        "approved",
    ]


@pytest.mark.parametrize(
    ("late", "verdict", "version"),
    [
        pytest.param(scan(1), "canceled", 2, id="as it was"),
        pytest.param(scan(1, terminal_number=12), "canceled", 2, id="at another till"),
        pytest.param(scan(1, code=code(step=STEP - 2)), "code_expired", 2, id="with an old code"),
        pytest.param(scan(1, code="?"), "code_malformed", 2, id="with no code"),
        pytest.param(scan(1, terminal_number=21, merchant_id=6), "id_reused", None, id="of another merchant"),
    ],
)
def test_late_scans(late: Scan, verdict: str, version: int | None) -> None:
    rows = snapshot()
    run(rows, cancel(1))
    outcomes, changes = run(rows, late)
    assert verdicts(outcomes) == [verdict]
    assert {payment.version for payment in changes.payments.values()} == ({version} if version else set())


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_a_canceled_order_stays_closed(batches: int) -> None:
    """Also when somebody scans under the id of the tombstone itself, which is the server's."""
    rows = snapshot()
    by_reference = cancel(None, reference="order-1", tombstone=900)
    scans = [scan(1), scan(900, seq=1, reference="order-1"), scan(2, seq=1, reference="order-1")]
    parts = [[by_reference, *scans]] if batches == 1 else [[by_reference], scans]
    outcomes = [outcome for part in parts for outcome in run(rows, *part)[0]]
    assert verdicts(outcomes) == ["canceled", "canceled", "id_reused", "canceled"]
    assert decided(outcomes[1]).payment.paid_by is None
    assert rows.open_payments == {(5, "order-1"): OpenPayment(payment_id(900), Status.CANCELED)}
    elsewhere = scan(3, seq=3, reference="order-1", terminal_number=21, merchant_id=6)
    assert verdicts(run(rows, elsewhere)[0]) == ["approved"]
