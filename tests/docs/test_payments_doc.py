"""docs/payments.md against the core: its diagram equals TRANSITIONS, and each row of its tables is played.

Long, because it plays every row of that page.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pos_server.business_days import CurrentDay
from pos_server.core.credentials.device_keys import SLOT_MAX
from pos_server.core.credentials.pins import is_weak
from pos_server.core.errors import ErrorCode
from pos_server.core.payments.fees import returned_fee, sale_fee
from pos_server.core.payments.operations import Decided, Outcome, Refused, Scan
from pos_server.core.payments.payment import OCCUPYING, TRANSITIONS, Purpose, Status
from pos_server.core.payments.rules import Limits, Risk
from pos_server.core.payments.snapshot import HouseAccount, TransferKind
from pos_server.core.rest.problems import ProblemCode, problem_text
from pos_server.engine.risk_hook import guarded
from pos_server.settings import Settings, load_settings
from tests.copies import replace
from tests.docs.documents import Section, read
from tests.docs.world import DEFAULTS, HOUR_MS, RULES, World, payment_of, verdict

DOCUMENT = read("payments.md")
DAY_MS = 24 * HOUR_MS


def words(section: Section) -> str:
    """The section's text in one line."""
    return " ".join(section.text.split())


# Statuses


def edges() -> dict[tuple[str | None, str], str]:
    """The diagram's arrows and their labels. `[*]` is None: there is no payment yet."""
    first, *lines = DOCUMENT.section("Statuses").fence("mermaid").strip().split("\n")
    assert first == "stateDiagram-v2"
    found: dict[tuple[str | None, str], str] = {}
    for line in lines:
        arrow = re.fullmatch(r"    (\[\*\]|\w+) --> (\w+): (.+)", line)
        assert arrow, line
        edge = (None if arrow[1] == "[*]" else arrow[1], arrow[2])
        assert edge not in found
        found[edge] = arrow[3]
    return found


def test_the_diagram_is_that_of_the_code_in_both_directions() -> None:
    assert set(edges()) == {(before, after) for before, afters in TRANSITIONS.items() for after in afters}
    assert {status for edge in edges() for status in edge if status} == set(Status)


def confirmed_without_money(world: World) -> Outcome:
    payment = world.pending()
    world.change_wallet(balance_minor=0)
    return world.confirm(payment)


def late_scan(world: World) -> Outcome:
    tombstone = payment_of(world.cancel(world.id()))
    return world.scan(payment_id=tombstone.payment_id)


# The causes of each transition, by its label in the diagram.
CAUSES: dict[str, list[Callable[[World], Outcome]]] = {
    "scan, no PIN needed": [lambda world: world.scan()],
    "scan, PIN needed": [lambda world: world.scan(typed=True)],
    "scan, a reason against it": [lambda world: world.scan(code="")],
    "cancel of a payment that never arrived": [
        lambda world: world.cancel(world.id()),
        lambda world: world.cancel(reference="order"),
    ],
    "confirm, right PIN": [lambda world: world.confirm(world.pending())],
    "confirm or reject": [confirmed_without_money, lambda world: world.reject(world.pending())],
    "cancel": [],
    "expiry": [lambda world: world.expire(world.pending())],
    "late scan of a tombstone": [late_scan],
}
CANCELS: dict[str, Callable[[World], Outcome]] = {
    "pending": lambda world: world.cancel(world.pending().payment_id),
    "approved": lambda world: world.cancel(world.scan().payment.payment_id),
}


@pytest.mark.parametrize("edge", edges(), ids=lambda edge: " to ".join(map(str, edge)))
def test_each_transition_is_caused_by_its_label(edge: tuple[str | None, str]) -> None:
    before, after = edge
    label = edges()[edge]
    causes = [CANCELS[before]] if label == "cancel" and before else CAUSES[label]
    assert causes
    for cause in causes:
        world = World()
        payment = payment_of(cause(world))
        assert payment.status == after
        assert (payment.version == 1) == (before is None)


def test_statuses_are_those_of_the_core() -> None:
    table = DOCUMENT.section("Statuses").table("Status", "Meaning", "Money")
    assert [row["Status"] for row in table] == list(Status)
    prose = words(DOCUMENT.section("Statuses"))
    *first, last = (f"`{status}`" for status in Status if status in OCCUPYING)
    assert f"A payment that is {', '.join(first)} or {last} holds its order" in prose
    final = [status for status, afters in TRANSITIONS.items() if not afters]
    assert f"`{final[0]}` and `{final[1]}` are final." in prose


# Decision of a scan


def test_the_confirmation_does_not_ask_the_risk_rule_again() -> None:
    world = World(rules=replace(RULES, risk=lambda scan, wallet: Risk.ASK_PIN))
    payment = world.scan().payment
    world.rules = replace(RULES, risk=lambda scan, wallet: Risk.REJECT)
    assert verdict(world.confirm(payment)) == "approved"


# Through the API


def test_problems_of_the_issuer_have_the_stated_status() -> None:
    prose = words(DOCUMENT.section("Wallets and cash"))
    assert "all ten are taken" in prose
    assert SLOT_MAX + 1 == 10
    for status, code in (
        (409, ProblemCode.NO_FREE_SLOT),
        (409, ErrorCode.FUNDS_SPENT),
        (409, ErrorCode.CANCEL_TOO_LATE),
        (404, ErrorCode.PAYMENT_UNKNOWN),
    ):
        assert f"`{code}`" in prose
        assert problem_text(code).status == status


# Limits and the day


def test_the_example_of_limits_by_currency_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    name, value = re.fullmatch(r"(\w+)='(.*)'\n", DOCUMENT.section("Limits").fence("sh"), re.DOTALL).groups()  # type: ignore[union-attr]
    monkeypatch.setenv(name, value)
    rules = load_settings().rules()
    assert rules.limits_of("JPY") == Limits(**json.loads(value)["JPY"])
    assert rules.limits_of("EUR") == load_settings().rules().limits


def test_a_limit_may_be_reached() -> None:
    limits = RULES.limits
    assert verdict(World().scan(limits.pin_free_minor_max)) == "approved"
    for amount_minor, expected in ((limits.payment_minor_max, "pending"), (limits.payment_minor_max + 1, "over")):
        assert expected in verdict(World().scan(amount_minor)).replace("amount_over_limit", "over")
    world = World(rules=replace(RULES, limits=replace(limits, pin_free_minor_max=0)))
    assert verdict(world.scan(1)) == "pending"


def test_a_day_begins_at_midnight_in_the_time_zone() -> None:
    assert f"The default is `{DEFAULTS['time_zone']}`" in words(DOCUMENT.section("The day"))
    zone = ZoneInfo("Europe/Berlin")
    days = CurrentDay("Europe/Berlin")
    for month, day, hours in ((3, 28, 24), (3, 29, 23), (10, 25, 25)):
        begin, end = (int(datetime(2026, month, day + n, tzinfo=zone).timestamp() * 1000) for n in (0, 1))
        assert end - begin == hours * HOUR_MS
        assert (days.start_ms(begin), days.start_ms(end - 1), days.start_ms(end)) == (begin, begin, end)


def test_what_counts_for_the_day() -> None:
    world = World()
    pending = world.pending()
    world.reject(world.pending())
    world.scan(code="")
    assert world.wallet.day_spent_minor == 0
    world.confirm(pending)
    assert (world.wallet.day_spent_minor, world.wallet.day_pin_free_minor) == (1000, 0)
    world.cancel(pending.payment_id)
    assert world.wallet.day_spent_minor == 0
    paid = world.scan().payment
    world.refund(paid, 1000)
    assert world.wallet.day_spent_minor == 1000
    second = world.scan().payment
    world.cancel(second.payment_id)
    assert (world.wallet.day_pin_free_minor, world.wallet.day_pin_free_count) == (2000, 2)
    # The next day, a cancel of yesterday's payment restores nothing.
    yesterday = world.scan().payment
    world.now_ms += 13 * HOUR_MS
    world.scan()
    world.cancel(yesterday.payment_id)
    assert world.wallet.day_spent_minor == 1000


# PIN, cancel, refund


def test_every_setting_that_is_named_exists() -> None:
    named = {name.removeprefix("POS_").lower() for name in re.findall(r"POS_[A-Z_]+", DOCUMENT.text)}
    assert named <= set(Settings.model_fields)


def test_pins_that_are_refused() -> None:
    assert [is_weak(pin) for pin in ("1111", "123456", "4321", "8901", "4071", "1122")] == [True] * 4 + [False] * 2


# Cash, fees, and where the money is


def test_differences_of_the_purposes() -> None:
    rows = DOCUMENT.section("Cash").table("", *Purpose)
    table = {row[""]: {purpose: row[purpose] for purpose in Purpose} for row in rows}
    for purpose in Purpose:
        world = World()
        world.change_wallet(balance_minor=10_000)
        asked = world.scan(1, purpose=purpose)
        assert (verdict(asked) == "pending") == (table["PIN at the till"][purpose] == "always")
        payment = asked.payment if verdict(asked) == "approved" else payment_of(world.confirm(asked.payment))
        assert (world.wallet.day_spent_minor == 1) == (table["Counts for the day"][purpose] == "yes")
        assert (verdict(world.refund(payment, 1)) == "refunded") == (table["Refund"][purpose] == "yes")
        world.change_till(fee_bps=10_000)
        assert (world.scan(1, purpose=purpose).payment.fee_minor == 1) == (table["Fee"][purpose] == "yes")


def test_the_example_of_a_fee() -> None:
    example = "For a sale of 9.99 at 145 bps and 0.07 fixed, the fee is 0.14 + 0.07 = 0.21."
    assert f"{example} Three refunds of 3.33 return 0.07 each." in words(DOCUMENT.section("Fees"))
    assert (sale_fee(999, 145, 0), sale_fee(999, 145, 7)) == (14, 21)
    assert [returned_fee(21, 999, refunded) for refunded in (333, 666, 999)] == [7, 14, 21]


def test_every_kind_of_transfer_is_in_the_table() -> None:
    table = DOCUMENT.section("Accounts and transfers").table("Kind", "From", "To", "Caused by")
    assert {row["Kind"] for row in table} == {*TransferKind} - {TransferKind.SETTLEMENT}
    accounts = set(re.findall(r"house `(\w+)`", DOCUMENT.section("Accounts and transfers").text))
    assert accounts == {*HouseAccount} - {HouseAccount.SETTLEMENT}


# Races


def cancel_before_scan(world: World) -> list[Outcome]:
    payment_id = world.id()
    return [world.cancel(payment_id), world.scan(payment_id=payment_id)]


def scan_before_cancel(world: World) -> list[Outcome]:
    before = world.wallet.balance_minor
    paid = world.scan()
    outcomes = [paid, world.cancel(paid.payment.payment_id)]
    assert world.wallet.balance_minor == before
    return outcomes


def cancel_before_confirmation(world: World) -> list[Outcome]:
    payment = world.pending()
    outcomes = [world.cancel(payment.payment_id), world.confirm(payment)]
    assert payment_of(outcomes[1]) == payment_of(outcomes[0])
    return outcomes


def confirmation_before_cancel(world: World) -> list[Outcome]:
    before = world.wallet.balance_minor
    payment = world.pending()
    outcomes = [world.confirm(payment), world.cancel(payment.payment_id)]
    assert world.wallet.balance_minor == before
    return outcomes


def confirmation_before_end(world: World) -> list[Outcome]:
    payment = world.pending()
    world.now_ms = (payment.expires_at_ms or 0) - 1
    return [world.confirm(payment), world.expire(payment)]


def end_before_confirmation(world: World) -> list[Outcome]:
    payment = world.pending()
    world.now_ms = payment.expires_at_ms or 0
    return [world.confirm(payment), world.expire(payment)]


def confirmation_and_rejection(world: World) -> list[Outcome]:
    first, second = world.pending(), world.pending()
    return [world.confirm(first), world.reject(first), world.reject(second), world.confirm(second)]


def two_wrong_pins(world: World) -> list[Outcome]:
    payment = world.pending()
    outcomes = [world.confirm(payment, right=False), world.confirm(payment, right=False)]
    assert payment_of(outcomes[0]) == payment_of(outcomes[1])
    assert (payment_of(outcomes[1]).version, payment_of(outcomes[1]).pin_failures) == (payment.version + 1, 1)
    return outcomes


def two_scans_of_a_code(world: World) -> list[Outcome]:
    code = world.code()
    return [world.scan(code=code), world.scan(code=code)]


def two_scans_of_an_order(world: World) -> list[Outcome]:
    return [
        *(world.scan(reference="a") for _ in range(2)),
        *(world.scan(reference="b", typed=True) for _ in range(2)),
    ]


def too_little_for_both(world: World) -> list[Outcome]:
    world.change_wallet(balance_minor=1500)
    return [world.scan(), world.scan()]


def refund_before_cancel(world: World) -> list[Outcome]:
    paid = world.scan()
    return [world.refund(paid.payment, 1), world.cancel(paid.payment.payment_id)]


def cancel_before_refund(world: World) -> list[Outcome]:
    paid = world.scan()
    return [world.cancel(paid.payment.payment_id), world.refund(paid.payment, 1)]


def spent_before_cancel(world: World) -> list[Outcome]:
    world.change_wallet(balance_minor=0)
    top_up = world.scan(purpose=Purpose.TOP_UP)
    return [top_up, world.scan(1), world.cancel(top_up.payment.payment_id)]


def two_refunds(world: World) -> list[Outcome]:
    paid = world.scan()
    return [world.refund(paid.payment, 600), world.refund(paid.payment, 600)]


# In the order of the document, each with its outcomes.
RACES: list[tuple[Callable[[World], list[Outcome]], list[str]]] = [
    (cancel_before_scan, ["canceled", "canceled"]),
    (scan_before_cancel, ["approved", "canceled"]),
    (cancel_before_confirmation, ["canceled", "canceled"]),
    (confirmation_before_cancel, ["approved", "canceled"]),
    (confirmation_before_end, ["approved", "approved"]),
    (end_before_confirmation, ["expired", "expired"]),
    (confirmation_and_rejection, ["approved", "approved", "customer_rejected", "customer_rejected"]),
    (two_wrong_pins, ["pending", "pending"]),
    (two_scans_of_a_code, ["approved", "code_used"]),
    (two_scans_of_an_order, ["approved", "already_paid", "pending", "already_pending"]),
    (too_little_for_both, ["approved", "insufficient_funds"]),
    (refund_before_cancel, ["refunded", "already_refunded"]),
    (cancel_before_refund, ["canceled", "not_refundable"]),
    (spent_before_cancel, ["approved", "approved", "funds_spent"]),
    (two_refunds, ["refunded", "refund_exceeds_remaining"]),
]


def test_the_races() -> None:
    table = DOCUMENT.section("Races").table("Race", "Outcome")
    for row, (race, expected) in zip(table, RACES, strict=True):
        seen = [verdict(outcome) for outcome in race(World())]
        assert seen == expected, row["Race"]
        # Each code in the row is an outcome.
        assert {*re.findall(r"[a-z]+_[a-z_]+", row["Outcome"])} <= {*seen}


def test_a_late_scan_is_declined_and_not_only_canceled() -> None:
    assert payment_of(cancel_before_scan(World())[1]).status is Status.DECLINED


# Idempotency


def test_what_is_idempotent() -> None:
    table = DOCUMENT.section("Idempotency").table("Request", "Key", "Answer to a repeat")
    world = World()
    paid, pending, rejected = world.scan(), world.pending(), world.pending()
    refund_id = world.id()
    scanned = paid.operation
    assert isinstance(scanned, Scan)
    requests: dict[str, Callable[[], Outcome]] = {
        "payment.scan": lambda: world.run(scanned),
        "payment.cancel": lambda: world.cancel(reference="order"),
        "refund.create": lambda: world.refund(paid.payment, 1, refund_id=refund_id),
        "payment.confirm": lambda: world.confirm(pending, right=False),
        "payment.reject": lambda: world.reject(rejected),
    }
    # The others are no decisions: test_protocol_rules.py and tests/gateway/test_shifts.py send them twice.
    assert [row["Request"] for row in table] == [*requests, "shift.open", "shift.close", "pin.set"]
    for request, send in requests.items():
        first = send()
        before = (world.wallet, dict(world.snapshot.payments), dict(world.snapshot.refunds))
        again = send()
        assert not isinstance(first, Refused)
        assert not isinstance(again, Refused)
        assert (again.replayed, again.payment) == (True, first.payment), request
        assert (world.wallet, world.snapshot.payments, world.snapshot.refunds) == before


# Your own risk rule


def test_the_example_of_a_risk_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_risk.py").write_text(DOCUMENT.section("Your own risk rule").fence("python"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("POS_RISK_HOOK", "shop_risk:judge")
    world = World(rules=load_settings().rules())
    assert verdict(world.scan(2_001, reference="kiosk-1")) == "pending"
    assert verdict(world.scan(2_000, reference="kiosk-2")) == "approved"
    assert verdict(world.scan(2_001, reference="batch-1")) == "approved"


@pytest.mark.parametrize(
    ("answer", "expected"), [(Risk.ACCEPT, "approved"), (Risk.ASK_PIN, "pending"), (Risk.REJECT, "risk_rejected")]
)
def test_answers_of_a_risk_rule(answer: Risk, expected: str) -> None:
    assert f"`Risk.{answer.name}`" in DOCUMENT.section("Your own risk rule").text
    assert verdict(World(rules=replace(RULES, risk=lambda scan, wallet: answer)).scan()) == expected


def test_a_risk_rule_that_fails_asks_for_the_pin() -> None:
    def broken(scan: Scan, wallet: object) -> Any:
        raise ZeroDivisionError

    decided = World().scan()
    assert isinstance(decided, Decided)
    scan, wallet = decided.operation, decided.wallet
    assert isinstance(scan, Scan)
    assert wallet is not None
    for hook in (broken, lambda scan, wallet: None, lambda scan, wallet: True):
        assert guarded(hook)(scan, wallet) is Risk.ASK_PIN


def test_a_risk_rule_sees_what_is_named() -> None:
    section = words(DOCUMENT.section("Your own risk rule"))
    of_scan = re.search(r"`scan` has (.+?)\.", section)
    of_wallet = re.search(r"`wallet` has (.+?)\.", section)
    assert of_scan
    assert of_wallet
    decided = World().scan()
    for owner, named in ((decided.operation, of_scan[1]), (decided.wallet, of_wallet[1])):
        for name in re.findall(r"`(\w+)`", named):
            assert hasattr(owner, name), name


def test_a_risk_rule_cannot_spare_the_pin_nor_unlock_it() -> None:
    accepting = replace(RULES, risk=lambda scan, wallet: Risk.ACCEPT)
    assert verdict(World(rules=accepting).scan(RULES.limits.pin_free_minor_max + 1)) == "pending"
    asking = World(rules=replace(RULES, risk=lambda scan, wallet: Risk.ASK_PIN))
    asking.change_wallet(pin_locked_until_ms=asking.now_ms + 1)
    assert verdict(asking.scan()) == "pin_locked"


# Through the API
