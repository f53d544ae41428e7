"""Payment records: transitions, occupied orders, refundable amounts, tombstones."""

import pytest

from pos_server.core.payments.payment import OCCUPYING, TRANSITIONS, Status
from tests.copies import replace
from tests.core.payments.builders import cancel, decided, run, scan, snapshot

APPROVED = decided(run(snapshot(), scan(1))[0][0]).payment
TOMBSTONE = decided(run(snapshot(), cancel(1))[0][0]).payment


def test_transitions() -> None:
    assert {before and str(before): sorted(after) for before, after in TRANSITIONS.items()} == {
        None: ["approved", "canceled", "declined", "pending"],
        "pending": ["approved", "canceled", "declined", "expired"],
        "approved": ["canceled"],
        "declined": [],
        "canceled": ["declined"],
        "expired": [],
    }


def test_occupying_statuses() -> None:
    assert sorted(OCCUPYING) == ["approved", "canceled", "pending"]


@pytest.mark.parametrize(
    ("status", "refunded_minor", "refundable_minor"),
    [
        (Status.APPROVED, 0, 1_000),
        (Status.APPROVED, 400, 600),
        (Status.APPROVED, 1_000, 0),
        (Status.CANCELED, 0, 0),
        (Status.PENDING, 0, 0),
        (Status.DECLINED, 0, 0),
        (Status.EXPIRED, 0, 0),
    ],
)
def test_refundable_amounts(status: Status, refunded_minor: int, refundable_minor: int) -> None:
    assert replace(APPROVED, status=status, refunded_minor=refunded_minor).refundable_minor == refundable_minor


def test_tombstones() -> None:
    assert (APPROVED.is_tombstone, TOMBSTONE.is_tombstone) == (False, True)
