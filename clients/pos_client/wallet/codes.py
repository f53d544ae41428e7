"""The payment code to show now. Works offline, with the device's key, a clock, and the last code shown.

A code belongs to a step (30 s) and a seq (0 to 9 within the step); docs/payment-code.md has the format. The server
accepts each code once, and only in order. So a wallet moves to the next code at every step, after every use, and after
a restart within a step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceKind

from ..device.connection import local_time_ms
from ..device.credentials import Credentials
from ..errors import CodesExhausted, CredentialsError
from .state import WalletStateFile

STEP_MS = payment_code.STEP_S * 1000
CLOCK_TOLERANCE_MS = 2_000
"""Tolerance of the estimated server clock in deciding whether a payment used the shown code."""


@dataclass(frozen=True, slots=True)
class ShownCode:
    """The 24 digits to show until `valid_until_ms` (Unix ms of this machine) or until they are used."""

    digits: str = field(repr=False)
    valid_until_ms: int


class CodeSource:
    """The codes of one wallet device.

    With a `state_file`, a new process continues after the last code shown. Without it, a code shown before a restart
    may be shown again, and the server declines it if it was used. `now_ms` returns this machine's time in Unix ms.
    """

    def __init__(
        self, credentials: Credentials, *, state_file: Path | None = None, now_ms: Callable[[], int] = local_time_ms
    ) -> None:
        """Raise CredentialsError if the credentials are not a wallet's, or the state cannot be read."""
        if credentials.kind is not DeviceKind.WALLET:
            raise CredentialsError(f"a {credentials.kind.value} has no payment codes: use the credentials of a wallet")
        self._credentials = credentials
        self._state_file = WalletStateFile(state_file)
        self._now_ms = now_ms
        self._shown: tuple[int, int] | None = None
        """Step and seq of the current code; None when the next one is due."""
        self._shown_since_ms = 0
        self.clock_offset_ms = self._state_file.state.clock_offset_ms
        """Server time minus local time. Set it once it is known; it is saved with the next code."""

    def used(self) -> None:
        """Mark the current code as used, so that the next call of `code` returns another."""
        self._shown = None

    def used_at(self, server_ms: int) -> None:
        """Record that a code of this wallet was used at this time (server's Unix ms), possibly the current one.

        A use before the current code was shown must have been another code. So payments of an offline period, reported
        all at once, do not exhaust the ten codes of a step.
        """
        if server_ms >= self._shown_since_ms + self.clock_offset_ms - CLOCK_TOLERANCE_MS:
            self.used()

    def code(self) -> ShownCode:
        """Return the code to show now: the same one until it is used or its step ends.

        Raises CodesExhausted when all ten codes of this step are used, CredentialsError when the state cannot be
        written.
        """
        now_step = payment_code.step_at((self._now_ms() + self.clock_offset_ms) / 1000)
        if self._shown is None or not now_step <= self._shown[0] <= now_step + 1:
            self._shown = self._advance(now_step)
            self._shown_since_ms = self._now_ms()
        step, seq = self._shown
        credentials = self._credentials
        digits = payment_code.make(credentials.device_key, credentials.number, credentials.slot, step, seq)
        return ShownCode(digits, self._local_end_ms(step))

    def _advance(self, now_step: int) -> tuple[int, int]:
        last_state = self._state_file.load()  # another process may have shown codes of this device
        step, seq = last_state.step, last_state.seq + 1
        # If the clock was set back slightly, the last step is in the future; the server accepts one step ahead.
        if not now_step <= step <= now_step + 1:
            step, seq = now_step, 0
        if seq > payment_code.SEQ_MAX:
            raise CodesExhausted(self._local_end_ms(step))
        self._state_file.change(step=step, seq=seq, clock_offset_ms=self.clock_offset_ms)  # before the code is shown
        return step, seq

    def _local_end_ms(self, step: int) -> int:
        return (step + 1) * STEP_MS - self.clock_offset_ms
