"""Adds a day up from what clients were told, by the rules that docs/payments.md and docs/architecture.md state.

It shares no code with the server: whatever the server gets wrong about money must not be wrong here in the same way.
Messages are those of docs/protocol.md as dicts, and the answers of the API in the same form. Amounts are minor units.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

Message = dict[str, Any]
# How often (counted) and how much of each, as a statement names them.
COUNTED = ("sales", "cancels", "refunds")
FLOWS = (*COUNTED, "fees", "fees_returned")


@dataclass(slots=True)
class Terms:
    """A merchant's terms. `rates` are (since when in Unix ms, basis points, fixed part), the earliest first."""

    currency: str
    time_zone: str = "UTC"
    cut_off: time = time.min
    rates: list[tuple[int, int, int]] = field(default_factory=list)

    def fee(self, amount_minor: int, scanned_ms: int) -> int:
        """Of a sale, by the rates at its scan."""
        _, bps, fixed_minor = [rates for rates in self.rates if rates[0] <= scanned_ms][-1]
        share = (Decimal(amount_minor) * bps / 10_000).quantize(Decimal(1), ROUND_HALF_UP)
        return min(amount_minor, int(share) + fixed_minor)

    def day_of(self, at_ms: int) -> date:
        """The business day of a moment. The time zone must be one without summer time."""
        local = (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(self.time_zone))
        return local.date() if local.time() >= self.cut_off else local.date() - timedelta(days=1)

    def ends_at(self, day: date) -> str:
        """When a business day ends, as a statement says it."""
        end = datetime.combine(day + timedelta(days=1), self.cut_off, ZoneInfo(self.time_zone)).astimezone(UTC)
        return f"{end:%Y-%m-%dT%H:%M:%SZ}"


def payments(told: Iterable[Message]) -> dict[str, list[Message]]:
    """What was told of each payment, the lowest version first, each version once."""
    versions: dict[str, dict[int, Message]] = {}
    for message in told:
        if message["type"] in ("payment.result", "payment.pending"):
            versions.setdefault(message["payment_id"], {}).setdefault(message["version"], message)
    return {payment_id: [of[version] for version in sorted(of)] for payment_id, of in versions.items()}


def refunds(told: Iterable[Message]) -> dict[str, list[Message]]:
    """The refunds of each payment, in their order. A repeat tells the sum of then, so the least is a refund's own."""
    first: dict[str, Message] = {}
    for message in told:
        if message["type"] == "refund.result":
            known = first.get(message["refund_id"], message)
            first[message["refund_id"]] = min(known, message, key=lambda refund: int(refund["refunded_minor"]))
    by_payment: dict[str, list[Message]] = {}
    for refund in sorted(first.values(), key=lambda refund: int(refund["refunded_minor"])):
        by_payment.setdefault(refund["payment_id"], []).append(refund)
    return by_payment


def approval(versions: Iterable[Message]) -> Message | None:
    """The message that said of a payment that it is approved, if it ever was."""
    return next((message for message in versions if message.get("status") == "approved"), None)


def flows(told: list[Message], terms: Terms) -> Iterator[tuple[int, str, int]]:
    """What moved on a merchant's account: when (Unix ms), which of FLOWS, how much. `told` is all its side heard."""
    given_back = refunds(told)
    for payment_id, versions in payments(told).items():
        sold = approval(versions)
        if sold is None or sold["purpose"] != "sale":
            continue
        amount_minor = sold["amount_minor"]
        fee_minor = terms.fee(amount_minor, versions[0]["decided_at_ms"])
        yield sold["decided_at_ms"], "sales", amount_minor
        yield sold["decided_at_ms"], "fees", fee_minor
        if versions[-1]["status"] == "canceled":
            yield versions[-1]["decided_at_ms"], "cancels", amount_minor
            yield versions[-1]["decided_at_ms"], "fees_returned", fee_minor
        returned_minor = 0
        for refund in given_back.get(payment_id, []):
            due_minor = fee_minor * refund["refunded_minor"] // amount_minor
            yield refund["decided_at_ms"], "refunds", refund["amount_minor"]
            yield refund["decided_at_ms"], "fees_returned", due_minor - returned_minor
            returned_minor = due_minor


def statements(told: list[Message], terms: Terms, days: list[date]) -> dict[date, dict[str, int]]:
    """A merchant's statement of each of these days, which follow each other and hold all that was told."""
    moved = {day: Counter[str]() for day in days}
    for at_ms, name, amount_minor in flows(told, terms):
        day = moved[terms.day_of(at_ms)]
        day[f"{name}_minor"] += amount_minor
        if name in COUNTED:
            day[name] += 1
    made, carried_minor = {}, 0
    for day in days:
        figures = {name: moved[day][name] for name in (*COUNTED, *(f"{name}_minor" for name in FLOWS))}
        plus_minor = figures["sales_minor"] + figures["fees_returned_minor"]
        net_minor = plus_minor - figures["cancels_minor"] - figures["refunds_minor"] - figures["fees_minor"]
        owed_minor = carried_minor + net_minor
        made[day] = figures | {
            "opening_minor": carried_minor,
            "net_minor": net_minor,
            "paid_out_minor": max(owed_minor, 0),
            "closing_minor": min(owed_minor, 0),
        }
        carried_minor = min(owed_minor, 0)
    return made


def cash(told: list[Message]) -> dict[str, int]:
    """What one merchant's side took in and paid out in cash and has not taken back: `top_up` and `withdrawal`."""
    sums = {"top_up": 0, "withdrawal": 0}
    for versions in payments(told).values():
        moved = approval(versions)
        if moved is not None and moved["purpose"] in sums and versions[-1]["status"] == "approved":
            sums[moved["purpose"]] += moved["amount_minor"]
    return sums


def wallet_balance(told: list[Message]) -> int:
    """What is in a wallet that was empty when it first connected, from what its customer was told of each payment."""
    back_minor = Counter[str]()
    for message in told:
        if "refunded_minor" in message:
            back_minor[message["payment_id"]] = max(back_minor[message["payment_id"]], message["refunded_minor"])
    balance_minor = 0
    for payment_id, versions in payments(told).items():
        if versions[-1]["status"] == "approved":
            sign = 1 if versions[-1]["purpose"] == "top_up" else -1
            balance_minor += sign * versions[-1]["amount_minor"] + back_minor[payment_id]
    return balance_minor
