"""decide() of scans: every decline with its causes, and their order of precedence."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind, derive_device_key
from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.operations import Decided
from pos_server.core.payments.payment import Status
from pos_server.core.payments.rules import Risk, Rules
from pos_server.core.payments.snapshot import (
    Acceptor,
    Changeset,
    DeviceStatus,
    MerchantStatus,
    OpenPayment,
    Snapshot,
    TerminalStatus,
    Wallet,
    WalletDevice,
    WalletStatus,
)
from tests.copies import replace
from tests.core.payments.builders import (
    ACCEPTOR,
    MASTER_KEY,
    NOW_MS,
    OTHER_WALLET,
    STEP,
    UNKNOWN_WALLET,
    WALLET,
    WIDE,
    cancel,
    code,
    decided,
    device,
    forged,
    key,
    mark,
    run,
    scan,
    snapshot,
    verdicts,
    wallet,
)

EARLIER = UUID(int=99)


Cause = Callable[["Situation"], None]


@dataclass
class Situation:
    """A scan that is approved unless causes of declines are applied to it."""

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


# In order of precedence. Any set can apply to one scan, except causes that exclude each other.
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
    assert changes.payments == {key(1): outcome.payment}
    assert changes.payment_versions == {key(1): 1 if cause is canceled else 0}
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


def test_the_first_of_any_set_of_causes_is_reported() -> None:
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


def test_a_device_without_a_wallet_row_cannot_pay() -> None:
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
def test_a_step_changes_on_its_millisecond(into_step_ms: int, step: int, verdict: str) -> None:
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
def test_a_wallet_can_be_emptied_but_not_overdrawn(amount_minor: int, verdict: str, balance_minor: int) -> None:
    rows = snapshot()
    decisions, _ = run(rows, scan(amount_minor=amount_minor))
    assert verdicts(decisions) == [verdict]
    assert rows.wallets[WALLET].balance_minor == balance_minor


@pytest.mark.parametrize(
    "bad_code",
    [forged(code()), code(wallet=UNKNOWN_WALLET), code(slot=5), code(generation=2), code(step=STEP + 2)],
    ids=["forged", "unknown wallet", "unknown device", "revoked generation", "far ahead"],
)
def test_forged_and_unknown_codes_are_indistinguishable(bad_code: str) -> None:
    def seen(scanned: str) -> tuple[Decided, Changeset, Snapshot]:
        """Return the complete output without the scanned code."""
        rows = snapshot()
        (decision,), changes = run(rows, scan(code=scanned))
        outcome = decided(decision)
        payment = replace(outcome.payment, fingerprint=b"")
        changes.payments = rows.payments = {payment.key: payment}
        return Decided(scan(code=""), payment, outcome.acceptor, outcome.wallet, outcome.replayed), changes, rows

    assert seen(bad_code) == seen(forged(code(wallet=OTHER_WALLET)))
