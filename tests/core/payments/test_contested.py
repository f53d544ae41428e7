"""Operations that leave a batch after a conflict, given the lost changes and the rows loaded afterwards."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pos_server.core.payments.contested import contested
from pos_server.core.payments.operations import Operation, Scan
from pos_server.core.payments.snapshot import Changeset, OpenPayment, Snapshot
from tests.copies import replace
from tests.core.payments.builders import (
    OTHER_WALLET,
    WALLET,
    cancel,
    code,
    key,
    payment_id,
    refund,
    run,
    scan,
    snapshot,
    wallet,
)


def at_other(number: int, *, seq: int = 0, terminal: int = 12) -> Scan:
    return scan(number, terminal_number=terminal, code=code(seq, wallet=OTHER_WALLET))


def lost(*operations: Operation) -> Changeset:
    return run(snapshot(), *operations)[1]


def moved(*numbers: int) -> Snapshot:
    """Return the rows after another server changed these wallets."""
    rows = snapshot()
    rows.wallets |= {number: replace(wallet(number), version=8) for number in numbers}
    return rows


@pytest.mark.parametrize(
    ("operations", "leaving"),
    [
        ([scan(1), at_other(2)], [0]),
        ([at_other(1), scan(2)], [1]),
        ([scan(1), scan(2, seq=1), at_other(3)], [0, 1]),
        # The same terminal: the later scan must not overtake, and its wallet leaves with it.
        ([scan(1), at_other(2, terminal=11), at_other(3, seq=1)], [0, 1, 2]),
        # An earlier operation of the same terminal stays.
        ([at_other(1, terminal=11), scan(2)], [1]),
        # The cancel of a payment that leaves.
        ([scan(1), at_other(2), cancel(1, terminal=12)], [0, 2]),
        ([scan(1), at_other(2), cancel(None, reference="order-1", terminal=12)], [0, 2]),
    ],
)
def test_operations_on_a_changed_wallet_leave(operations: Sequence[Operation], leaving: list[int]) -> None:
    assert contested(operations, lost(*operations), moved(WALLET)) == leaving


def test_a_payment_that_another_server_stored_leaves() -> None:
    operations = [scan(1), at_other(2)]
    rows = snapshot()
    run(rows, scan(1))
    rows.wallets = snapshot().wallets
    assert contested(operations, lost(*operations), rows) == [0]


def test_an_order_that_another_server_took_leaves() -> None:
    operations = [scan(1), at_other(2)]
    changes, rows = lost(*operations), snapshot()
    payment = changes.payments[key(2)]
    rows.open_payments[5, "order-2"] = OpenPayment(payment_id(7), payment.status)
    assert contested(operations, changes, rows) == [1]


def test_a_refund_that_another_server_made_leaves() -> None:
    rows = snapshot()
    run(rows, scan(1), at_other(2))
    _, changes = run(rows, refund(50, 100, 1), refund(51, 100, 2, terminal=12))
    # `rows` has both refunds; only the first was made by the other server.
    del rows.refunds[key(51)]
    rows.payments[key(2)] = replace(rows.payments[key(2)], version=changes.payment_versions[key(2)])
    rows.wallets[WALLET] = replace(rows.wallets[WALLET], version=changes.wallet_versions[WALLET])
    rows.wallets[OTHER_WALLET] = replace(rows.wallets[OTHER_WALLET], version=changes.wallet_versions[OTHER_WALLET])
    assert contested([refund(50, 100, 1), refund(51, 100, 2, terminal=12)], changes, rows) == [0]


def test_nobody_leaves_if_nothing_changed() -> None:
    operations = [scan(1), at_other(2)]
    assert contested(operations, lost(*operations), snapshot()) == []


@given(
    st.lists(st.tuples(st.sampled_from([11, 12]), st.sampled_from([WALLET, OTHER_WALLET])), max_size=8),
    st.sets(st.sampled_from([WALLET, OTHER_WALLET])),
)
def test_no_operation_overtakes_another_of_its_till_or_wallet(
    parties: list[tuple[int, int]], changed: set[int]
) -> None:
    operations = [
        scan(number, terminal_number=terminal, code=code(number, wallet=number_of_wallet))
        for number, (terminal, number_of_wallet) in enumerate(parties, 1)
    ]
    leaving = contested(operations, lost(*operations), moved(*changed))
    assert leaving == sorted(leaving)
    for position, (terminal, number_of_wallet) in enumerate(parties):
        must_leave = number_of_wallet in changed or any(
            before < position and (parties[before][0] == terminal or parties[before][1] == number_of_wallet)
            for before in leaving
        )
        assert (position in leaving) == must_leave
