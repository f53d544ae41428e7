"""Operations: their fingerprints, and `repr` without secrets."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pos_server.core.payments.operations import Entry, MoveCash, Scan
from pos_server.core.payments.payment import Purpose
from tests.core.payments.builders import code, decided, payment_id, run, scan, snapshot

QUICK = settings(max_examples=50)


def test_repr_of_a_scan_hides_the_code() -> None:
    text = repr(scan())
    assert code() not in text
    assert "reference='order-1'" in text


def test_repr_of_a_payment_hides_the_fingerprint() -> None:
    (outcome,), _ = run(snapshot(), scan())
    assert repr(decided(outcome).payment.fingerprint) not in repr(outcome)
    assert code() not in repr(outcome)


def test_fingerprint() -> None:
    """SHA-256 of the fields, joined by unit separators; computed independently of this code."""
    assert scan(code="7" * 24).fingerprint.hex() == "940b46e676611f921918bdc7f7aae4a5"
    assert scan(code="7" * 24, entry=Entry.TYPED).fingerprint.hex() == "a3a265de0fd6558b40c09f51784c2614"
    for purpose in (Purpose.TOP_UP, Purpose.WITHDRAWAL):
        for entry in Entry:
            assert scan(code="7" * 24, entry=entry, purpose=purpose).fingerprint not in (
                scan(code="7" * 24).fingerprint,
                scan(code="7" * 24, entry=Entry.TYPED).fingerprint,
            )
    assert scan(code="7" * 24, payment_id=payment_id(2)).fingerprint == scan(code="7" * 24).fingerprint


# Values that the wire accepts: printable references without a separator; a code may be any text.
SCANS = st.builds(
    Scan,
    payment_id=st.just(payment_id(1)),
    terminal_number=st.integers(1, 12),
    merchant_id=st.integers(1, 12),
    reference=st.from_regex(r"[!-~]{1,2}", fullmatch=True),
    amount_minor=st.integers(1, 12),
    currency=st.sampled_from(["EUR", "USD"]),
    code=st.text(alphabet="1\x1f", max_size=3),
    entry=st.sampled_from(Entry),
    purpose=st.sampled_from(Purpose),
)
CASH = st.builds(
    MoveCash,
    payment_id=st.just(payment_id(1)),
    merchant_id=st.integers(1, 12),
    wallet_number=st.integers(1, 12),
    reference=st.from_regex(r"[!-~]{1,2}", fullmatch=True),
    amount_minor=st.integers(1, 12),
    currency=st.sampled_from(["EUR", "USD"]),
    purpose=st.sampled_from(Purpose),
)


@QUICK
@given(SCANS | CASH, SCANS | CASH)
def test_different_bodies_have_different_fingerprints(first: Scan | MoveCash, second: Scan | MoveCash) -> None:
    assert len(first.fingerprint) == 16
    assert (first.fingerprint == second.fingerprint) == (first == second)
