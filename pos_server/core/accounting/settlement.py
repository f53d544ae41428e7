"""Settlement statements: what a merchant is owed for a business day, as data, CSV and JSON.

    net     = sales - cancels - refunds - fees + fees returned
    closing = opening + net - paid out                   paid out = max(0, opening + net)

A refund or cancel counts on the day it is made, not on the day of the sale. Amounts are minor units of `currency`.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

FORMAT = "pos-settlement-1"
# A day is settled this long after its end. The start of a server checks that a payment of the day is stored by then.
SETTLEMENT_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Statement:
    """One merchant's business day, from `starts_at` up to but excluding `ends_at` (ISO 8601 in UTC)."""

    merchant_id: int
    merchant_name: str
    currency: str
    starts_at: str
    ends_at: str
    opening_minor: int
    sales: int
    sales_minor: int
    cancels: int
    cancels_minor: int
    refunds: int
    refunds_minor: int
    fees_minor: int
    fees_returned_minor: int
    net_minor: int
    paid_out_minor: int
    closing_minor: int


_SUMMED = [name for name in Statement.__slots__ if name.endswith("_minor") or name in ("sales", "cancels", "refunds")]


def totals(statements: Sequence[Statement]) -> dict[str, dict[str, int]]:
    """Return the number of statements and the sum of each figure, by currency."""
    by_currency: dict[str, dict[str, int]] = {}
    for statement in statements:
        total = by_currency.setdefault(statement.currency, {"statements": 0, **dict.fromkeys(_SUMMED, 0)})
        total["statements"] += 1
        for name in _SUMMED:
            total[name] += getattr(statement, name)
    return dict(sorted(by_currency.items()))


def csv_text(business_date: str, statements: Sequence[Statement]) -> str:
    """Return the statements of a day as CSV (RFC 4180). The first field is the type of the line.

    - `H`: format and date.
    - `N`: column names of the `S` and `T` lines.
    - `S`: one statement.
    - `T`: totals of one currency in the same columns; the number of statements stands in the column `merchant_id`.
    - `C`: number of statements, and the SHA-256 of all preceding lines.

    The same day always gives the same file. A day without merchants has no `S` and `T` lines.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\r\n")
    lines.writerow(["H", FORMAT, business_date])
    lines.writerow(["N", *Statement.__slots__])
    for statement in statements:
        lines.writerow(["S", *(getattr(statement, name) for name in Statement.__slots__)])
    for currency, total in totals(statements).items():
        values = {"merchant_id": total["statements"], "currency": currency} | {name: total[name] for name in _SUMMED}
        lines.writerow(["T", *(values.get(name, "") for name in Statement.__slots__)])
    lines.writerow(["C", len(statements), sha256(text.getvalue().encode()).hexdigest()])
    return text.getvalue()


def json_text(business_date: str, statements: Sequence[Statement]) -> str:
    """Return the statements of a day as JSON: `format`, `business_date`, `statements`, `totals` and `control`.

    `control` holds the number of statements and the SHA-256 of `statements` and `totals` in canonical form: sorted
    keys, no spaces, UTF-8. The same day always gives the same file.
    """
    content = {"statements": [asdict(statement) for statement in statements], "totals": totals(statements)}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    control = {"statements": len(statements), "sha256": sha256(canonical.encode()).hexdigest()}
    document = {"format": FORMAT, "business_date": business_date, **content, "control": control}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
