"""Every code under load is one that a wallet could show at that time, and is used once."""

from loadtest.shared.codes import Codes
from loadtest.shared.seed import device_of
from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.credentials.payment_code import SEQ_MAX, STEP_S, VALID

WALLET = device_of(DeviceKind.WALLET, 1_000_000_001)
STEP = 60_000_000
NOW_S = float(STEP * STEP_S)
SHOWN = [(step, seq) for step in (STEP, STEP + 1) for seq in range(SEQ_MAX + 1)]


def shown(codes: Codes, now_s: float) -> tuple[int, int] | None:
    """Return step and seq of the next code, after checking that the server accepts it at `now_s`."""
    text = codes.next(now_s)
    if text is None:
        return None
    code = payment_code.parse(text)
    assert code is not None
    check, step = payment_code.check(code, WALLET.key, payment_code.step_at(now_s), 0)
    assert check is VALID
    assert codes.mark == (step, code.seq)
    return step, code.seq


def test_codes_are_of_this_step_then_of_the_next_then_none() -> None:
    codes = Codes(WALLET)
    assert [shown(codes, NOW_S) for _ in SHOWN] == SHOWN
    assert shown(codes, NOW_S) is None
    assert shown(codes, NOW_S + STEP_S) == (STEP + 2, 0), "the codes of the next step were already shown"


def test_left_counts_the_codes_of_this_step_and_the_next() -> None:
    codes = Codes(WALLET)
    for left in range(len(SHOWN), 0, -1):
        assert codes.left(NOW_S) == left
        assert shown(codes, NOW_S) is not None
    assert codes.left(NOW_S) == 0
    assert codes.left(NOW_S + STEP_S) == SEQ_MAX + 1
    assert codes.left(NOW_S + 9 * STEP_S) == len(SHOWN)


def test_codes_made_in_advance_equal_those_made_on_demand() -> None:
    codes = Codes(WALLET)
    codes.prepare(NOW_S, 3)
    assert codes.mark < SHOWN[0], "making a code does not show it"
    assert [shown(codes, NOW_S) for _ in range(5)] == SHOWN[:5]
    full = Codes(WALLET)
    full.prepare(NOW_S, 100)
    assert [shown(full, NOW_S) for _ in SHOWN] == SHOWN
    assert shown(full, NOW_S) is None


def test_codes_made_too_long_ago_are_skipped() -> None:
    codes = Codes(WALLET)
    codes.prepare(NOW_S, 3)
    assert shown(codes, NOW_S + STEP_S) == (STEP, 0)
    # The server would process it in the step after that.
    assert shown(codes, NOW_S + 2 * STEP_S - 1) == (STEP + 1, 0)


def test_a_run_continues_after_the_last_code_shown() -> None:
    previous = Codes(WALLET)
    previous.prepare(NOW_S, 5)
    assert shown(previous, NOW_S) == (STEP, 0)
    assert shown(Codes(WALLET, previous.mark), NOW_S) == (STEP, 1)
