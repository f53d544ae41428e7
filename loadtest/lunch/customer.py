"""One customer at one till: every flow of the mix, step by step as locust counts them.

A step is named after what was sent and who heard of it: `scan → terminal` is from the till's send until the till has
read the outcome, `scan → wallet` from the same send until the wallet has. What is heard after one of the two had lost
its connection counts as `resume → …`, from the new sign-in: what lies before it is the outage, which `connection lost`
and `wi-fi drop` measure.
"""

import math
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import gevent
import uuid_utils

from loadtest.lunch import plan
from loadtest.lunch.device import Device, Talk, Wallet
from loadtest.lunch.outcomes import (
    ALREADY_PAID,
    APPROVED,
    CANCELED,
    INSUFFICIENT_FUNDS,
    PENDING,
    REFUNDED,
    Failure,
    Outcome,
    balance_failure,
    failure_of,
    outcome_of,
)
from loadtest.lunch.plan import Flow
from loadtest.lunch.recorder import PaymentRecord, Recorder
from loadtest.shared.seed import CURRENCY

# The customers of a load test have no secrets.
PIN = "739154"


class _NotPaidError(Exception):
    """The customer leaves without having paid, and that is right."""


@dataclass(slots=True)
class Sale:
    """A payment that the till has begun: what both sides are told of it, and what its till knows."""

    till: Talk
    wallet: Talk
    customer: Wallet
    scan: dict[str, Any]
    record: PaymentRecord


class Checkout:
    """A till. `speed` divides all think times."""

    def __init__(self, till: Device, recorder: Recorder, chance: random.Random, speed: float) -> None:
        self._till = till
        self._recorder = recorder
        self._chance = chance
        self._speed = speed
        self._flows: dict[Flow, Callable[[ExitStack, Wallet], None]] = {
            Flow.APPROVE: self._approve,
            Flow.INSUFFICIENT_FUNDS: self._approve,
            Flow.PIN: self._pin,
            Flow.CANCEL: self._cancel,
            Flow.REFUND: self._refund,
            Flow.RESCAN: self._rescan,
            Flow.WIFI_DROP: self._wifi_drop,
        }

    def think_s(self, from_to_s: tuple[float, float]) -> float:
        """How long somebody takes, in the time of the test."""
        return self._chance.uniform(*from_to_s) / self._speed

    def serve(self, flow: Flow, wallet: Wallet) -> bool:
        """One customer, from the first article to the bag. Returns whether they may come back.

        A failure is recorded and ends the flow: what is in the wallet is not known any more.
        """
        gevent.sleep(self.think_s(plan.GOODS_S))
        with ExitStack() as sales:
            try:
                self._flows[flow](sales, wallet)
            except _NotPaidError:
                pass
            except Failure:
                return False
            else:
                self._recorder.flow(flow)
        gevent.sleep(self.think_s(plan.BAG_S))
        return True

    # the flows

    def _approve(self, sales: ExitStack, wallet: Wallet) -> None:
        """Also of a customer without money: what the wallet holds says which it must be."""
        sale = self._sale(sales, wallet, self._price())
        sale.till.ask(sale.scan)
        self._both("scan", sale, *_expected(sale))

    def _pin(self, sales: ExitStack, wallet: Wallet) -> None:
        if not wallet.ready["pin_set"]:
            self._set_pin(wallet)
        sale = self._sale(sales, wallet, self._chance.randint(*plan.PIN_PRICE_MINOR))
        sale.till.ask(sale.scan)
        if sale.record.amount_minor > wallet.balance_minor:
            self._both("scan", sale, INSUFFICIENT_FUNDS)
            return
        _, asked = self._both("scan", sale, PENDING)
        gevent.sleep(self.think_s(plan.PIN_S))
        sale.wallet.ask(
            {
                "type": "payment.confirm",
                "payment_id": sale.record.payment_id,
                "version": asked["version"],
                "pin": PIN,
            }
        )
        self._both("pin", sale, APPROVED, -sale.record.amount_minor)

    def _cancel(self, sales: ExitStack, wallet: Wallet) -> None:
        sale = self._paid(sales, wallet)
        sale.till.ask({"type": "payment.cancel", "payment_id": sale.record.payment_id})
        self._both("cancel", sale, CANCELED, sale.record.amount_minor)

    def _refund(self, sales: ExitStack, wallet: Wallet) -> None:
        sale = self._paid(sales, wallet)
        part_minor = self._chance.randint(1, sale.record.amount_minor - 1)
        sale.till.ask(
            {
                "type": "refund.create",
                "refund_id": _new_id(),
                "payment_id": sale.record.payment_id,
                "amount_minor": part_minor,
            }
        )
        self._both("refund", sale, REFUNDED, part_minor)
        sale.record.refunded_minor = part_minor

    def _rescan(self, sales: ExitStack, wallet: Wallet) -> None:
        """The cashier is not sure, takes a new code and scans the order again: it must not be charged again."""
        first = self._paid(sales, wallet)
        again = self._sale(sales, wallet, first.record.amount_minor, first.scan["reference"])
        again.till.ask(again.scan)
        heard, _ = self._both("rescan", again, ALREADY_PAID)
        if heard["paid_by"] != first.record.payment_id:
            self._fail("rescan → terminal", again.till.age_s(), "another payment has paid this order")

    def _wifi_drop(self, sales: ExitStack, wallet: Wallet) -> None:
        """The till's connection is cut about when the server decides; the same scan then has the one answer."""
        sale = self._sale(sales, wallet, self._price())
        expected, change_minor = _expected(sale)
        sale.till.ask(sale.scan)
        gevent.sleep(self._chance.choice((0.0, 0.002, 0.01)))
        self._till.cut()
        heard, _ = self._both("scan", sale, expected, change_minor)
        answers_repeat = _answers_next(sale.till)
        sale.till.ask(sale.scan)
        repeated = self._step("repeat → terminal", sale.till, answers_repeat, expected)
        if repeated["version"] != heard["version"]:
            self._fail("repeat → terminal", sale.till.age_s(), "the same scan had another answer")

    # their parts

    def _paid(self, sales: ExitStack, wallet: Wallet) -> Sale:
        """An approved payment, and the cashier's thought about it."""
        sale = self._sale(sales, wallet, self._price())
        expected, change_minor = _expected(sale)
        sale.till.ask(sale.scan)
        self._both("scan", sale, expected, change_minor)
        if expected != APPROVED:
            raise _NotPaidError
        gevent.sleep(self.think_s(plan.CASHIER_NOTICES_S))
        return sale

    def _price(self) -> int:
        return self._chance.randint(*plan.PRICE_MINOR)

    def _sale(self, sales: ExitStack, wallet: Wallet, amount_minor: int, reference: str | None = None) -> Sale:
        payment_id = _new_id()
        record = PaymentRecord(payment_id, wallet.number, amount_minor)
        scan = {
            "type": "payment.scan",
            "payment_id": payment_id,
            "reference": reference or f"order-{payment_id}",
            "amount_minor": amount_minor,
            "currency": CURRENCY,
            "code": wallet.code(),
        }
        sales.callback(self._recorder.payment, record)
        till, talk = sales.enter_context(self._till.talk(payment_id)), sales.enter_context(wallet.talk(payment_id))
        till.partner, talk.partner = talk, till
        return Sale(till, talk, wallet, scan, record)

    def _set_pin(self, wallet: Wallet) -> None:
        request_id = _new_id()
        with wallet.talk(request_id) as talk:
            talk.ask({"type": "pin.set", "request_id": request_id, "new_pin": PIN})
            self._step("pin.set", talk, lambda message: message["type"] == "pin.changed", APPROVED)
        wallet.ready["pin_set"] = True

    def _both(
        self, sent: str, sale: Sale, expected: Outcome, change_minor: int = 0
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both sides must hear the outcome, and the wallet's balance change by so much; returns what they heard."""
        heard = self._step(f"{sent} → terminal", sale.till, _about(expected), expected)
        if heard["type"] == "payment.result":
            sale.record.status, sale.record.decline_code = heard["status"], heard["decline_code"]
            sale.record.settled_s = sale.record.settled_s or time.time()
        if outcome_of(heard) != expected:
            raise _NotPaidError  # its code was too old when the server was back
        sale.customer.balance_minor += change_minor
        told = self._step(f"{sent} → wallet", sale.wallet, _about(expected), expected)
        if "balance_minor" in told:
            problem = balance_failure(told["balance_minor"], sale.customer.balance_minor)
            if problem is not None:
                self._fail("balance", sale.wallet.age_s(), problem)
        return heard, told

    def _step(
        self, name: str, talk: Talk, wanted: Callable[[dict[str, Any]], bool], expected: Outcome
    ) -> dict[str, Any]:
        """Wait for a step's message, and record it under its name. Raises Failure, recorded too."""
        try:
            heard = talk.wait_for(wanted)
        except Failure as failure:
            self._recorder.failed(name, talk.age_s(), failure)
            raise
        seconds = heard.at_s - talk.sent_s
        resumed_s = talk.resumed_s(heard.at_s)
        problem = failure_of(outcome_of(heard.message), expected, away_s=seconds if resumed_s else 0.0)
        if problem is not None:
            self._fail(name, seconds, problem)
        if resumed_s is None:
            self._recorder.done(name, seconds)
        else:
            side = "terminal" if name.endswith("terminal") else "wallet"
            self._recorder.done(f"resume → {side}", heard.at_s - resumed_s)
        return heard.message

    def _fail(self, name: str, seconds: float, problem: str) -> None:
        failure = Failure(problem)
        self._recorder.failed(name, seconds, failure)
        raise failure


def _expected(sale: Sale) -> tuple[Outcome, int]:
    """What must become of a scan, by what the wallet holds, and by how much that changes."""
    if sale.record.amount_minor > sale.customer.balance_minor:
        return INSUFFICIENT_FUNDS, 0
    return APPROVED, -sale.record.amount_minor


def _about(expected: Outcome) -> Callable[[dict[str, Any]], bool]:
    """What settles a step: the outcome that must be, or a final one that must not. Earlier news may be told again."""
    if expected in (CANCELED, REFUNDED):
        return lambda message: outcome_of(message) == expected
    if expected == PENDING:
        return lambda message: message["type"] != "error"
    return lambda message: message["type"] == "payment.result"


def _answers_next(talk: Talk) -> Callable[[dict[str, Any]], bool]:
    """The answer to the next request, not one more to an earlier one."""
    before = frozenset(talk.message_ids)
    return lambda message: (
        message["type"] == "payment.result"
        and (talk.first_loss_s < math.inf or (message["reply_to"] is not None and message["reply_to"] not in before))
    )


def _new_id() -> str:
    return str(uuid_utils.uuid7())
