"""Accounting of a day from the messages of its clients, by the rules in docs/payments.md and docs/architecture.md.

It shares no code with the server, so that it cannot share the server's errors. Messages are those of docs/protocol.md
as dicts; responses of the REST API have the same form. Amounts are in minor units.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

Message = dict[str, Any]
# Names of movements in a statement: those with a count and an amount, then those with an amount only.
COUNTED = ("sales", "cancels", "refunds")
FLOWS = (*COUNTED, "fees", "fees_returned")


@dataclass(slots=True)
class Terms:
    """A merchant's terms. `rates` are (start in Unix ms, basis points, fixed part), earliest first."""

    currency: str
    time_zone: str = "UTC"
    cut_off: time = time.min
    rates: list[tuple[int, int, int]] = field(default_factory=list)

    def fee(self, amount_minor: int, scanned_ms: int) -> int:
        """Return the fee of a sale by the rates at its scan."""
        _, bps, fixed_minor = [rates for rates in self.rates if rates[0] <= scanned_ms][-1]
        share = (Decimal(amount_minor) * bps / 10_000).quantize(Decimal(1), ROUND_HALF_UP)
        return min(amount_minor, int(share) + fixed_minor)

    def day_of(self, at_ms: int) -> date:
        """Return the business day of a moment. The time zone must have no summer time."""
        local = (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(self.time_zone))
        return local.date() if local.time() >= self.cut_off else local.date() - timedelta(days=1)

    def ends_at(self, day: date) -> str:
        """Return the end of a business day in the format of statements."""
        end = datetime.combine(day + timedelta(days=1), self.cut_off, ZoneInfo(self.time_zone)).astimezone(UTC)
        return f"{end:%Y-%m-%dT%H:%M:%SZ}"


def payments(messages: Iterable[Message]) -> dict[str, list[Message]]:
    """Return the messages about each payment by version, each version once, lowest first."""
    versions: dict[str, dict[int, Message]] = {}
    for message in messages:
        if message["type"] in ("payment.result", "payment.pending"):
            versions.setdefault(message["payment_id"], {}).setdefault(message["version"], message)
    return {
        payment_id: [by_version[version] for version in sorted(by_version)]
        for payment_id, by_version in versions.items()
    }


def refunds(messages: Iterable[Message]) -> dict[str, list[Message]]:
    """Return the refunds of each payment in order.

    A repeat has the current `refunded_minor`, so the message with the lowest one is the first answer.
    """
    first: dict[str, Message] = {}
    for message in messages:
        if message["type"] == "refund.result":
            earlier = first.get(message["refund_id"], message)
            first[message["refund_id"]] = min(earlier, message, key=lambda refund: int(refund["refunded_minor"]))
    by_payment: dict[str, list[Message]] = {}
    for refund in sorted(first.values(), key=lambda refund: int(refund["refunded_minor"])):
        by_payment.setdefault(refund["payment_id"], []).append(refund)
    return by_payment


def approval(versions: Iterable[Message]) -> Message | None:
    """Return the message that approved a payment, or None."""
    return next((message for message in versions if message.get("status") == "approved"), None)


def flows(messages: list[Message], terms: Terms) -> Iterator[tuple[int, str, int]]:
    """Yield movements on a merchant's account as (Unix ms, name in FLOWS, amount) from all messages of its side."""
    refunds_by_payment = refunds(messages)
    for payment_id, versions in payments(messages).items():
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
        for refund in refunds_by_payment.get(payment_id, []):
            due_minor = fee_minor * refund["refunded_minor"] // amount_minor
            yield refund["decided_at_ms"], "refunds", refund["amount_minor"]
            yield refund["decided_at_ms"], "fees_returned", due_minor - returned_minor
            returned_minor = due_minor


def statements(messages: list[Message], terms: Terms, days: list[date]) -> dict[date, dict[str, int]]:
    """Return a merchant's statement for each of these consecutive days, which must cover all messages."""
    moved = {day: Counter[str]() for day in days}
    for at_ms, name, amount_minor in flows(messages, terms):
        day = moved[terms.day_of(at_ms)]
        day[f"{name}_minor"] += amount_minor
        if name in COUNTED:
            day[name] += 1
    by_day, carried_minor = {}, 0
    for day in days:
        figures = {name: moved[day][name] for name in (*COUNTED, *(f"{name}_minor" for name in FLOWS))}
        plus_minor = figures["sales_minor"] + figures["fees_returned_minor"]
        net_minor = plus_minor - figures["cancels_minor"] - figures["refunds_minor"] - figures["fees_minor"]
        owed_minor = carried_minor + net_minor
        by_day[day] = figures | {
            "opening_minor": carried_minor,
            "net_minor": net_minor,
            "paid_out_minor": max(owed_minor, 0),
            "closing_minor": min(owed_minor, 0),
        }
        carried_minor = min(owed_minor, 0)
    return by_day


def cash(messages: list[Message]) -> dict[str, int]:
    """Return a merchant's sums of cash movements that were not canceled: `top_up` and `withdrawal`."""
    sums = {"top_up": 0, "withdrawal": 0}
    for versions in payments(messages).values():
        moved = approval(versions)
        if moved is not None and moved["purpose"] in sums and versions[-1]["status"] == "approved":
            sums[moved["purpose"]] += moved["amount_minor"]
    return sums


def wallet_balance(messages: list[Message]) -> int:
    """Return the balance of a wallet that was empty at its first connect, from the messages that it received."""
    refunded_minor = Counter[str]()
    for message in messages:
        if "refunded_minor" in message:
            refunded_minor[message["payment_id"]] = max(
                refunded_minor[message["payment_id"]], message["refunded_minor"]
            )
    balance_minor = 0
    for payment_id, versions in payments(messages).items():
        if versions[-1]["status"] == "approved":
            sign = 1 if versions[-1]["purpose"] == "top_up" else -1
            balance_minor += sign * versions[-1]["amount_minor"] + refunded_minor[payment_id]
    return balance_minor
