"""One customer at one till: every flow of the mix, in the steps that locust counts.

A step is named after the request and the receiver: `scan → terminal` lasts from the till's send until the till has read
the outcome, `scan → wallet` from the same send until the wallet has read it. If one of them loses its connection in
between, the step counts as `resume → …`, from the new authentication. The outage before it is measured as
`connection lost` or `wi-fi drop`.
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
from loadtest.lunch.device import Device, Exchange, Wallet
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

# PINs of a load test need not be secret.
PIN = "739154"


class _NotPaidError(Exception):
    """The customer leaves without paying, as expected."""


@dataclass(slots=True)
class Sale:
    """A payment in progress: the exchanges of both sides, and the till's record."""

    till: Exchange
    wallet: Exchange
    customer: Wallet
    scan: dict[str, Any]
    record: PaymentRecord


class Checkout:
    """The flows at one till. `speed` divides all think times."""

    def __init__(self, till: Device, recorder: Recorder, rng: random.Random, speed: float) -> None:
        self._till = till
        self._recorder = recorder
        self._rng = rng
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

    def think_s(self, range_s: tuple[float, float]) -> float:
        """Return a random think time from this range, divided by the speed."""
        return self._rng.uniform(*range_s) / self._speed

    def serve(self, flow: Flow, wallet: Wallet) -> bool:
        """Serve one customer, from the first article to the bag. Returns whether the customer may come again.

        A failure is recorded and ends the flow; the wallet's balance is unknown from then on.
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

    # Flows.

    def _approve(self, sales: ExitStack, wallet: Wallet) -> None:
        """Scan once. The wallet's balance decides whether the payment must be approved or declined."""
        sale = self._sale(sales, wallet, self._price())
        sale.till.request(sale.scan)
        self._await_both("scan", sale, *_expected(sale))

    def _pin(self, sales: ExitStack, wallet: Wallet) -> None:
        if not wallet.ready["pin_set"]:
            self._set_pin(wallet)
        sale = self._sale(sales, wallet, self._rng.randint(*plan.PIN_PRICE_MINOR))
        sale.till.request(sale.scan)
        if sale.record.amount_minor > wallet.balance_minor:
            self._await_both("scan", sale, INSUFFICIENT_FUNDS)
            return
        _, confirmation = self._await_both("scan", sale, PENDING)
        gevent.sleep(self.think_s(plan.PIN_S))
        sale.wallet.request(
            {
                "type": "payment.confirm",
                "payment_id": sale.record.payment_id,
                "merchant_id": confirmation["merchant_id"],
                "version": confirmation["version"],
                "pin": PIN,
            }
        )
        self._await_both("pin", sale, APPROVED, -sale.record.amount_minor)

    def _cancel(self, sales: ExitStack, wallet: Wallet) -> None:
        sale = self._paid_sale(sales, wallet)
        sale.till.request({"type": "payment.cancel", "payment_id": sale.record.payment_id})
        self._await_both("cancel", sale, CANCELED, sale.record.amount_minor)

    def _refund(self, sales: ExitStack, wallet: Wallet) -> None:
        sale = self._paid_sale(sales, wallet)
        part_minor = self._rng.randint(1, sale.record.amount_minor - 1)
        sale.till.request(
            {
                "type": "refund.create",
                "refund_id": _new_id(),
                "payment_id": sale.record.payment_id,
                "amount_minor": part_minor,
            }
        )
        self._await_both("refund", sale, REFUNDED, part_minor)
        sale.record.refunded_minor = part_minor

    def _rescan(self, sales: ExitStack, wallet: Wallet) -> None:
        """Scan a paid order again with a new code, like an unsure cashier. It must not be charged again."""
        sale = self._paid_sale(sales, wallet)
        second_sale = self._sale(sales, wallet, sale.record.amount_minor, sale.scan["reference"])
        second_sale.till.request(second_sale.scan)
        result, _ = self._await_both("rescan", second_sale, ALREADY_PAID)
        if result["paid_by"] != sale.record.payment_id:
            self._fail("rescan → terminal", second_sale.till.age_s(), "the order was paid by another payment")

    def _wifi_drop(self, sales: ExitStack, wallet: Wallet) -> None:
        """Cut the till's connection about when the server decides. A repeat of the scan must have the same answer."""
        sale = self._sale(sales, wallet, self._price())
        expected, change_minor = _expected(sale)
        sale.till.request(sale.scan)
        gevent.sleep(self._rng.choice((0.0, 0.002, 0.01)))
        self._till.cut()
        result, _ = self._await_both("scan", sale, expected, change_minor)
        answers_repeat = _answers_next(sale.till)
        sale.till.request(sale.scan)
        repeated_result = self._step("repeat → terminal", sale.till, answers_repeat, expected)
        if repeated_result["version"] != result["version"]:
            self._fail("repeat → terminal", sale.till.age_s(), "the repeated scan had another answer")

    # Parts of flows.

    def _paid_sale(self, sales: ExitStack, wallet: Wallet) -> Sale:
        """Make an approved payment and wait until the cashier notices something."""
        sale = self._sale(sales, wallet, self._price())
        expected, change_minor = _expected(sale)
        sale.till.request(sale.scan)
        self._await_both("scan", sale, expected, change_minor)
        if expected != APPROVED:
            raise _NotPaidError
        gevent.sleep(self.think_s(plan.CASHIER_NOTICES_S))
        return sale

    def _price(self) -> int:
        return self._rng.randint(*plan.PRICE_MINOR)

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
        till_exchange = sales.enter_context(self._till.exchange(payment_id))
        wallet_exchange = sales.enter_context(wallet.exchange(payment_id))
        till_exchange.partner, wallet_exchange.partner = wallet_exchange, till_exchange
        return Sale(till_exchange, wallet_exchange, wallet, scan, record)

    def _set_pin(self, wallet: Wallet) -> None:
        request_id = _new_id()
        with wallet.exchange(request_id) as exchange:
            exchange.request({"type": "pin.set", "request_id": request_id, "new_pin": PIN})
            self._step("pin.set", exchange, lambda message: message["type"] == "pin.changed", APPROVED)
        wallet.ready["pin_set"] = True

    def _await_both(
        self, request: str, sale: Sale, expected: Outcome, change_minor: int = 0
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Wait for the expected outcome at both sides, and for a balance changed by `change_minor`.

        Returns the messages to the till and to the wallet.
        """
        till_message = self._step(f"{request} → terminal", sale.till, _settles(expected), expected)
        if till_message["type"] == "payment.result":
            sale.record.status, sale.record.decline_code = till_message["status"], till_message["decline_code"]
            sale.record.settled_s = sale.record.settled_s or time.time()
        if outcome_of(till_message) != expected:
            raise _NotPaidError  # the code had expired when the server was reachable again
        sale.customer.balance_minor += change_minor
        wallet_message = self._step(f"{request} → wallet", sale.wallet, _settles(expected), expected)
        if "balance_minor" in wallet_message:
            problem = balance_failure(wallet_message["balance_minor"], sale.customer.balance_minor)
            if problem is not None:
                self._fail("balance", sale.wallet.age_s(), problem)
        return till_message, wallet_message

    def _step(
        self, name: str, exchange: Exchange, matches: Callable[[dict[str, Any]], bool], expected: Outcome
    ) -> dict[str, Any]:
        """Wait for the message of a step and record its latency. Raises Failure, which is recorded too."""
        try:
            received = exchange.wait_for(matches)
        except Failure as failure:
            self._recorder.failure(name, exchange.age_s(), failure)
            raise
        seconds = received.at_s - exchange.sent_s
        resumed_s = exchange.resumed_s(received.at_s)
        problem = failure_of(outcome_of(received.message), expected, away_s=seconds if resumed_s else 0.0)
        if problem is not None:
            self._fail(name, seconds, problem)
        if resumed_s is None:
            self._recorder.success(name, seconds)
        else:
            side = "terminal" if name.endswith("terminal") else "wallet"
            self._recorder.success(f"resume → {side}", received.at_s - resumed_s)
        return received.message

    def _fail(self, name: str, seconds: float, problem: str) -> None:
        failure = Failure(problem)
        self._recorder.failure(name, seconds, failure)
        raise failure


def _expected(sale: Sale) -> tuple[Outcome, int]:
    """Return the expected outcome of a scan for the wallet's balance, and the change of the balance."""
    if sale.record.amount_minor > sale.customer.balance_minor:
        return INSUFFICIENT_FUNDS, 0
    return APPROVED, -sale.record.amount_minor


def _settles(expected: Outcome) -> Callable[[dict[str, Any]], bool]:
    """Return a predicate for messages that end a step: the expected outcome, or another final one.

    Earlier messages of the payment may arrive again and do not end the step.
    """
    if expected in (CANCELED, REFUNDED):
        return lambda message: outcome_of(message) == expected
    if expected == PENDING:
        return lambda message: message["type"] != "error"
    return lambda message: message["type"] == "payment.result"


def _answers_next(exchange: Exchange) -> Callable[[dict[str, Any]], bool]:
    """Return a predicate for the answer to the next request, which excludes further answers to earlier ones."""
    earlier_ids = frozenset(exchange.message_ids)
    return lambda message: (
        message["type"] == "payment.result"
        and (
            exchange.first_loss_s < math.inf
            or (message["reply_to"] is not None and message["reply_to"] not in earlier_ids)
        )
    )


def _new_id() -> str:
    return str(uuid_utils.uuid7())
