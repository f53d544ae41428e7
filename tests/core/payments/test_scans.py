"""decide() of scans: the full outcome of one scan, limits, and the PIN. Rows in, outcomes out.

tests/model/ runs random histories against a second, simpler model of the same rules.
"""

import copy

import pytest

from pos_server.core.payments.decide import decide
from pos_server.core.payments.declines import DeclineCode
from pos_server.core.payments.operations import Decided, Entry, Scan
from pos_server.core.payments.payment import Payment, Status
from pos_server.core.payments.rules import Risk, Rules
from pos_server.core.payments.snapshot import (
    Changeset,
    DeviceStatus,
    OpenPayment,
    Transfer,
    TransferKind,
    Wallet,
    WalletDevice,
)
from tests.copies import replace
from tests.core.payments.builders import (
    ACCEPTOR,
    ASKING,
    DAY_MS,
    DAY_START_MS,
    KEYRING,
    NOW_MS,
    WALLET,
    WIDE,
    after,
    code,
    decided,
    device,
    forged,
    key,
    mark,
    payment_id,
    run,
    scan,
    snapshot,
    verdicts,
    wallet,
)

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
        payments={key(1): payment},
        payment_versions={key(1): 0},
        transfers=[Transfer(TransferKind.PAYMENT, payment_id(1), 901, 500, 1234, "EUR", WALLET, 5)],
        wallets={WALLET: left},
        wallet_versions={WALLET: 7},
        devices={(WALLET, 0): spent},
    )
    expected = snapshot()
    expected.wallets[WALLET] = left
    expected.devices[WALLET, 0] = spent
    expected.payments[key(1)] = payment
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
        payments={key(1): payment},
        payment_versions={key(1): 0},
        wallets={WALLET: left},
        wallet_versions={WALLET: 7},
        devices={(WALLET, 0): replace(device(), spent_mark=mark(0))},
    )
    assert rows.open_payments == {}


def test_a_declined_payment_without_a_wallet() -> None:
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
    assert changes == Changeset({key(1): payment}, {key(1): 0})
    assert rows == replace(snapshot(), payments={key(1): payment})


def test_an_empty_batch() -> None:
    decisions, changes = run(snapshot())
    assert (decisions, changes) == ([], Changeset())
    assert not changes


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
    # The previous day's counters do not count, and a currency may have its own limits.
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), day_start_ms=DAY_START_MS - 1, **of_today)
    rules = replace(limited(payment_minor_max=0), currency_limits={"EUR": limited(**limits).limits})
    outcomes, _ = run(rows, scan(amount_minor=1), rules=rules)
    assert verdicts(outcomes) == ["pending" if limits == {"pin_free_minor_max": 0} else "approved"]


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
def test_counters_include_earlier_payments_of_the_batch(batches: int) -> None:
    rules = limited(pin_free_day_count_max=2, pin_free_day_minor_max=500, day_minor_max=1_000)
    scans = [scan(n, seq=n, amount_minor=amount) for n, amount in enumerate([400, 101, 100, 1, 501], start=1)]
    rows = snapshot()
    if batches == 1:
        outcomes, _ = run(rows, *scans, rules=rules)
    else:
        outcomes = run(rows, *scans[:2], rules=rules)[0] + run(rows, *scans[2:], rules=rules)[0]
    assert verdicts(outcomes) == ["approved", "pending", "approved", "pending", "daily_limit"]
    assert rows.wallets[WALLET] == after(12, 400, 100)


def test_counters_start_again_on_a_new_day() -> None:
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


def test_day_start_ms_starts_the_business_day() -> None:
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), day_start_ms=NOW_MS - 1, day_spent_minor=1)
    for day_start_ms, spent_minor in ((NOW_MS - 1, 1_001), (NOW_MS, 1_000)):
        _, changes = decide(
            [scan()], copy.deepcopy(rows), KEYRING, NOW_MS, WIDE, day_start_ms=day_start_ms
        )  # fmt: skip
        assert changes.wallets[WALLET].day_spent_minor == spent_minor
        assert changes.wallets[WALLET].day_start_ms == day_start_ms


# --- what needs the PIN


def test_a_pending_payment() -> None:
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
        payments={key(1): payment},
        payment_versions={key(1): 0},
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


def test_the_risk_hook_gets_the_scan_and_the_wallet_with_day_counters() -> None:
    seen = []

    def hook(scan: Scan, wallet: Wallet) -> Risk:
        seen.append((scan, wallet))
        return Risk.ACCEPT

    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), day_start_ms=0, day_spent_minor=5)
    too_much, forgery = scan(2, seq=1, amount_minor=10_001), scan(3, code=forged(code()))
    run(rows, scan(1), too_much, forgery, rules=replace(WIDE, risk=hook))
    # The hook is called only for payments that would otherwise be approved.
    assert seen == [(scan(1), wallet())]


@pytest.mark.parametrize(
    ("locked_until_ms", "verdict"),
    [(NOW_MS - 1, "pending"), (NOW_MS, "pending"), (NOW_MS + 1, "pin_locked")],
)
def test_a_locked_pin_declines_only_payments_that_need_it(locked_until_ms: int, verdict: str) -> None:
    rows = snapshot()
    rows.wallets[WALLET] = replace(wallet(), pin_locked_until_ms=locked_until_ms)
    outcomes, _ = run(rows, scan(1, amount_minor=1_001), scan(2, seq=1), rules=ASKING)
    assert verdicts(outcomes) == [verdict, "approved"]


def test_a_pending_order_declines_a_second_scan() -> None:
    outcomes, _ = run(snapshot(), scan(1, amount_minor=1_001), scan(2, seq=1, reference="order-1"), rules=ASKING)
    assert verdicts(outcomes) == ["pending", "already_pending"]
    assert decided(outcomes[1]).payment.paid_by == payment_id(1)


def test_a_repeat_of_a_pending_scan_has_the_pin_tries_left() -> None:
    rows = snapshot()
    large = scan(1, amount_minor=1_001)
    (first,), _ = run(rows, large, rules=ASKING)
    (again,), changes = run(rows, large, now_ms=NOW_MS + 59_000, rules=ASKING)
    assert again == replace(decided(first), replayed=True)
    assert changes == Changeset()
