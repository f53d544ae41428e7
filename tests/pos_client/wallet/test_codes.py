import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pos_client.errors import CodesExhausted, CredentialsError
from pos_client.wallet.codes import CodeSource
from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceKind
from tests.pos_client.fake_server import DEVICE_KEY, credentials
from tests.pos_client.fake_time import Clock

WALLET = credentials(DeviceKind.WALLET)
STEP = 56_666_666
START_MS = STEP * 30_000


def digits(step: int, seq: int) -> str:
    return payment_code.make(DEVICE_KEY, 1_000_000_001, 3, step, seq)


def test_a_code_stays_for_its_step_and_the_next_step_starts_at_seq_0() -> None:
    clock = Clock(START_MS + 1)
    source = CodeSource(WALLET, now_ms=clock)
    shown = source.code()
    assert shown.digits == digits(STEP, 0)
    assert shown.valid_until_ms == START_MS + 30_000
    clock.now_ms = START_MS + 29_999
    assert source.code() == shown
    clock.now_ms = START_MS + 30_000
    assert source.code().digits == digits(STEP + 1, 0)


def test_each_use_advances_the_code_up_to_ten_per_step() -> None:
    clock = Clock(START_MS)
    source = CodeSource(WALLET, now_ms=clock)
    for seq in range(10):
        assert source.code().digits == digits(STEP, seq)
        source.used()
        source.used()  # a second notice about the same code does not use the next one
    with pytest.raises(CodesExhausted) as exhausted:
        source.code()
    assert exhausted.value.again_at_ms == START_MS + 30_000
    clock.now_ms = exhausted.value.again_at_ms
    assert source.code().digits == digits(STEP + 1, 0)


def test_codes_are_made_for_the_server_time() -> None:
    source = CodeSource(WALLET, now_ms=Clock(START_MS))
    source.clock_offset_ms = 95_000
    shown = source.code()
    assert shown.digits == digits(STEP + 3, 0)
    assert shown.valid_until_ms == START_MS + 25_000


def test_a_clock_set_back_slightly_repeats_no_code() -> None:
    clock = Clock(START_MS)
    source = CodeSource(WALLET, now_ms=clock)
    assert source.code().digits == digits(STEP, 0)
    clock.now_ms = START_MS - 1
    assert source.code().digits == digits(STEP, 0)
    source.used()
    assert source.code().digits == digits(STEP, 1)
    clock.now_ms = START_MS - 60_000  # the server rejects codes from so far ahead, so the earlier clock was wrong
    assert source.code().digits == digits(STEP - 2, 0)


def test_a_restart_repeats_no_code_and_keeps_the_clock_offset(tmp_path: Path) -> None:
    state_file = tmp_path / "wallet.state.json"
    first = CodeSource(WALLET, state_file=state_file, now_ms=Clock(START_MS))
    first.clock_offset_ms = 30_000
    assert first.code().digits == digits(STEP + 1, 0)
    second = CodeSource(WALLET, state_file=state_file, now_ms=Clock(START_MS + 5))
    assert second.clock_offset_ms == 30_000
    assert second.code().digits == digits(STEP + 1, 1)
    first.used()
    assert first.code().digits == digits(STEP + 1, 2)  # it sees the code that the other process has shown
    assert state_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["wallet.state.json"]


def test_a_restart_in_a_later_step_starts_at_seq_0(tmp_path: Path) -> None:
    state_file = tmp_path / "state"
    CodeSource(WALLET, state_file=state_file, now_ms=Clock(START_MS)).code()
    later = CodeSource(WALLET, state_file=state_file, now_ms=Clock(START_MS + 30_000))
    assert later.code().digits == digits(STEP + 1, 0)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", json.dumps({"step": 1, "seq": 77}).encode()])
def test_a_damaged_state_is_replaced_and_logged(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state_file = tmp_path / "state"
    state_file.write_bytes(content)
    assert CodeSource(WALLET, state_file=state_file, now_ms=Clock(START_MS)).code().digits == digits(STEP, 0)
    assert "damaged" in caplog.text


def test_an_unwritable_state_shows_no_code(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CredentialsError, match="wallet's state"):
        CodeSource(WALLET, state_file=tmp_path / "file" / "state", now_ms=Clock(START_MS)).code()


moves = st.lists(st.one_of(st.integers(0, 40_000), st.sampled_from(["use", "restart"])), max_size=60)


@settings(max_examples=100)
@given(moves)
def test_a_used_code_is_never_shown_again_and_the_server_accepts_each(moves: list[int | str]) -> None:
    with TemporaryDirectory() as folder:
        clock, state_file = Clock(START_MS), Path(folder) / "state"
        source = CodeSource(WALLET, state_file=state_file, now_ms=clock)
        spent = -1
        for move in moves:
            if isinstance(move, int):
                clock.now_ms += move
            elif move == "use":
                source.used()
            else:
                source = CodeSource(WALLET, state_file=state_file, now_ms=clock)
            with suppress(CodesExhausted):
                code = payment_code.parse(source.code().digits)
                assert code is not None
                verdict, step = payment_code.check(code, DEVICE_KEY, payment_code.step_at(clock.now_ms / 1000), 0)
                assert verdict is payment_code.CodeCheck.VALID
                mark = payment_code.spent_mark(step, code.seq)
                assert mark > spent if isinstance(move, str) else mark >= spent
                spent = mark


def test_a_terminal_has_no_codes() -> None:
    with pytest.raises(CredentialsError, match="no payment codes"):
        CodeSource(credentials(DeviceKind.TERMINAL))
