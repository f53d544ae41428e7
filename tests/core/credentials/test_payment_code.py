"""The rotating payment code. The literal codes were computed with OpenSSL, independently of this code."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pos_server.core.credentials.payment_code import (
    CODE_DIGITS,
    WALLET_NUMBER_MAX,
    WALLET_NUMBER_MIN,
    CodeCheck,
    PaymentCode,
    check,
    make,
    parse,
    spent_mark,
    step_at,
)

KEY = bytes(range(32, 64))
WALLET = 1_000_000_001
STEP = 60_000_000
EXPIRED_STEPS = 20
INVALID = (CodeCheck.INVALID, 0)
QUICK = settings(max_examples=50)

KEYS = st.binary(min_size=32, max_size=32)
WALLETS = st.integers(WALLET_NUMBER_MIN, WALLET_NUMBER_MAX)
DIGITS = st.integers(0, 9)
STEPS = st.integers(1, 2**40)


def parsed(code: str) -> PaymentCode:
    fields = parse(code)
    assert fields is not None
    return fields


@pytest.mark.parametrize(
    ("unix_time_s", "step"),
    [
        (0, 0),
        (29.999, 0),
        (30, 1),
        (59.999999, 1),
        (1_799_999_999.999, 59_999_999),
        (1_800_000_000, 60_000_000),
        (1_800_000_029.999, 60_000_000),
        (1_800_000_030, 60_000_001),
    ],
)
def test_step_at(unix_time_s: float, step: int) -> None:
    assert step_at(unix_time_s) == step


@QUICK
@given(st.integers(0, 2**43))
def test_step_boundaries_are_exact_to_the_millisecond(now_ms: int) -> None:
    assert step_at(now_ms / 1000) == now_ms // 30_000


@pytest.mark.parametrize(
    ("wallet_number", "slot", "step", "seq", "code"),
    [
        (1_000_000_001, 0, 60_000_000, 0, "771000000001006438058199"),
        (1_000_000_001, 0, 60_000_000, 1, "771000000001013779878313"),
        (1_000_000_001, 0, 60_000_881, 0, "771000000001000000036905"),
        (9_999_999_999, 9, 0, 9, "779999999999991103330347"),
        (1_234_567_890, 3, 2**40, 5, "771234567890352553309149"),
    ],
    ids=["first", "next seq", "MAC with leading zeros", "largest fields, step 0", "far future"],
)
def test_make(wallet_number: int, slot: int, step: int, seq: int, code: str) -> None:
    assert make(KEY, wallet_number, slot, step, seq) == code


@QUICK
@given(KEYS, WALLETS, DIGITS, STEPS, DIGITS)
def test_a_code_has_24_digits_and_contains_the_wallet(key: bytes, wallet: int, slot: int, step: int, seq: int) -> None:
    code = make(key, wallet, slot, step, seq)
    assert len(code) == CODE_DIGITS == 24
    assert code.isascii()
    assert code.isdigit()
    assert code[:14] == f"77{wallet}{slot}{seq}"
    assert parse(code) == PaymentCode(wallet, slot, seq, code[14:])


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("77" + "1000000000" + "0" + "0" + "0000000000", PaymentCode(1_000_000_000, 0, 0, "0000000000")),
        ("77" + "9999999999" + "9" + "8" + "0123456789", PaymentCode(9_999_999_999, 9, 8, "0123456789")),
        ("77" + "1234567890" + "1" + "2" + "9876543210", PaymentCode(1_234_567_890, 1, 2, "9876543210")),
    ],
)
def test_parse(code: str, fields: PaymentCode) -> None:
    assert parse(code) == fields


GOOD = "771000000001006438058199"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("", id="empty"),
        pytest.param(GOOD[:-1], id="23 digits"),
        pytest.param(GOOD + "0", id="25 digits"),
        pytest.param(GOOD * 2, id="two codes"),
        pytest.param(" " + GOOD, id="space before"),
        pytest.param(GOOD + " ", id="space after"),
        pytest.param(GOOD + "\n", id="newline after"),
        pytest.param(GOOD + "\r\n", id="line end of a scanner after"),
        pytest.param(GOOD[:12] + " " + GOOD[12:], id="space within"),
        pytest.param(GOOD[:12] + " " + GOOD[13:], id="space for a digit"),
        pytest.param(GOOD[:12] + "-" + GOOD[13:], id="hyphen for a digit"),
        pytest.param("-" + GOOD[1:], id="sign"),
        pytest.param(GOOD[:-1] + "\0", id="NUL"),
        pytest.param("76" + GOOD[2:], id="prefix of others"),
        pytest.param("87" + GOOD[2:], id="another prefix of others"),
        pytest.param("77" + "0999999999" + GOOD[12:], id="wallet number too small"),
        pytest.param("77" + "0000000000" + GOOD[12:], id="wallet number zero"),
        pytest.param(GOOD[:-1] + "\u0669", id="Arabic digit"),
        pytest.param("\u0667\u0667" + GOOD[2:], id="Arabic prefix"),
        pytest.param(GOOD[:13] + "\uff11" + GOOD[14:], id="fullwidth digit"),
        pytest.param(GOOD[:13] + "\u00b2" + GOOD[14:], id="superscript digit"),
        pytest.param(GOOD[:-1] + "\ud800", id="lone surrogate"),
        pytest.param(GOOD[:-1] + "a", id="letter"),
        pytest.param("https://example.com/", id="some QR code"),
        pytest.param("4006381333931", id="a product's EAN"),
    ],
)
def test_parse_rejects(code: str) -> None:
    assert parse(code) is None


@QUICK
@given(st.text(max_size=30) | st.from_regex(r"77\d{22}\s?", fullmatch=True))
def test_any_text_is_parsed_or_rejected(code: str) -> None:
    fields = parse(code)
    if fields is not None:
        assert code == f"77{fields.wallet_number}{fields.slot}{fields.seq}{fields.mac}"
        assert fields.wallet_number >= 1_000_000_000


def test_repr_hides_the_mac() -> None:
    assert repr(parsed(GOOD)) == "PaymentCode(wallet_number=1000000001, slot=0, seq=0)"


@pytest.mark.parametrize(
    ("made_steps_ago", "expected"),
    [
        (-3, INVALID),
        (-2, INVALID),
        (-1, (CodeCheck.VALID, STEP + 1)),
        (0, (CodeCheck.VALID, STEP)),
        (1, (CodeCheck.VALID, STEP - 1)),
        (2, (CodeCheck.EXPIRED, STEP - 2)),
        (3, (CodeCheck.EXPIRED, STEP - 3)),
        (20, (CodeCheck.EXPIRED, STEP - 20)),
        (21, (CodeCheck.EXPIRED, STEP - 21)),
        (22, INVALID),
        (1000, INVALID),
    ],
)
def test_check_with_20_expired_steps(made_steps_ago: int, expected: tuple[CodeCheck, int]) -> None:
    code = parsed(make(KEY, WALLET, 0, STEP - made_steps_ago, 0))
    assert check(code, KEY, STEP, 20) == expected


@QUICK
@given(KEYS, WALLETS, DIGITS, st.integers(30, 2**40), DIGITS, st.integers(-25, 5), st.integers(0, 22))
def test_the_window_is_exact(
    key: bytes, wallet: int, slot: int, now_step: int, seq: int, delta: int, expired_steps: int
) -> None:
    code = parsed(make(key, wallet, slot, now_step + delta, seq))
    if -1 <= delta <= 1:
        expected = (CodeCheck.VALID, now_step + delta)
    elif -1 - expired_steps <= delta < -1:
        expected = (CodeCheck.EXPIRED, now_step + delta)
    else:
        expected = INVALID
    assert check(code, key, now_step, expired_steps) == expected


@QUICK
@given(st.integers(1, 25), st.integers(0, 25), st.integers(0, 40))
def test_the_lookback_ends_at_step_0(now_step: int, step: int, expired_steps: int) -> None:
    verdict, code_step = check(parsed(make(KEY, WALLET, 0, step, 0)), KEY, now_step, expired_steps)
    assert (verdict is CodeCheck.INVALID) == (step > now_step + 1 or step < now_step - 1 - expired_steps)
    assert code_step == (0 if verdict is CodeCheck.INVALID else step)


@QUICK
@given(KEYS, WALLETS, DIGITS, STEPS, DIGITS, st.integers(0, 23), st.integers(1, 9))
def test_a_changed_digit_invalidates_the_code(
    key: bytes, wallet: int, slot: int, step: int, seq: int, position: int, shift: int
) -> None:
    code = make(key, wallet, slot, step, seq)
    changed = code[:position] + str((int(code[position]) + shift) % 10) + code[position + 1 :]
    fields = parse(changed)
    if position < 2:
        assert fields is None
    elif fields is not None:
        assert check(fields, key, step, EXPIRED_STEPS) == INVALID


@QUICK
@given(KEYS, KEYS, WALLETS, STEPS)
def test_another_key_does_not_verify(key: bytes, other: bytes, wallet: int, step: int) -> None:
    verdict, _ = check(parsed(make(key, wallet, 0, step, 0)), other, step, EXPIRED_STEPS)
    assert verdict is (CodeCheck.VALID if key == other else CodeCheck.INVALID)


@pytest.mark.parametrize(
    ("step", "seq", "mark"),
    [(0, 0, 0), (0, 9, 9), (1, 0, 10), (60_000_000, 3, 600_000_003)],
)
def test_spent_mark(step: int, seq: int, mark: int) -> None:
    assert spent_mark(step, seq) == mark


@QUICK
@given(STEPS, DIGITS, STEPS, DIGITS)
def test_marks_order_codes_by_step_then_seq(step: int, seq: int, other_step: int, other_seq: int) -> None:
    mark, other = spent_mark(step, seq), spent_mark(other_step, other_seq)
    assert (mark < other) == ((step, seq) < (other_step, other_seq))
    assert (mark == other) == ((step, seq) == (other_step, other_seq))


@QUICK
@given(STEPS, DIGITS, DIGITS)
def test_marks_order_neighbouring_steps(step: int, seq: int, next_seq: int) -> None:
    assert spent_mark(step, seq) < spent_mark(step + 1, next_seq)
