"""Which payment code a wallet shows now. Works offline: it needs the device's key, a clock, and what was shown before.

A code is made for a step (30 s) and a seq (0 to 9 within the step). The server takes each code once, and only in
order, so a wallet moves on at every step, after every use, and when it is started again within a step.
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
CLOCK_DOUBT_MS = 2_000
"""How far this machine's idea of the server's clock may be off when it is asked whether a payment used a code."""


@dataclass(frozen=True, slots=True)
class ShownCode:
    """The 24 digits to show, until `valid_until_ms` (Unix ms of this machine's clock) or until they are used."""

    digits: str = field(repr=False)
    valid_until_ms: int


class CodeSource:
    """The codes of one wallet device.

    With a `state_file`, a new process goes on where the last one stopped; without, a code shown before a restart may
    be shown again, and the server declines it if it was used. `now_ms` is this machine's clock, in Unix ms.
    """

    def __init__(
        self, credentials: Credentials, *, state_file: Path | None = None, now_ms: Callable[[], int] = local_time_ms
    ) -> None:
        """Raises CredentialsError for credentials that are not a wallet's, and when the state cannot be read."""
        if credentials.kind is not DeviceKind.WALLET:
            raise CredentialsError(f"a {credentials.kind.value} has no payment codes")
        self._credentials = credentials
        self._state_file = WalletStateFile(state_file)
        self._now_ms = now_ms
        self._showing: tuple[int, int] | None = None
        self._showing_since_ms = 0
        self.clock_offset_ms = self._state_file.state.clock_offset_ms
        """Server time less local time. Set it when it is learned; it is kept with the next code."""

    def used(self) -> None:
        """The code that is shown was used: the next one is another."""
        self._showing = None

    def used_at(self, server_ms: int) -> None:
        """A code of this wallet was used at this time (server's Unix ms): perhaps the one that is shown.

        One that was used before this one was ever shown was another. So the payments of a time without a connection,
        told all at once, do not use up the ten codes of a step.
        """
        if server_ms >= self._showing_since_ms + self.clock_offset_ms - CLOCK_DOUBT_MS:
            self.used()

    def code(self) -> ShownCode:
        """The code to show now: the same until it is used or its step is over.

        Raises CodesExhausted when this step's ten are used, CredentialsError when the state cannot be written.
        """
        now_step = payment_code.step_at((self._now_ms() + self.clock_offset_ms) / 1000)
        if self._showing is None or not now_step <= self._showing[0] <= now_step + 1:
            self._showing = self._advance(now_step)
            self._showing_since_ms = self._now_ms()
        step, seq = self._showing
        me = self._credentials
        digits = payment_code.make(me.device_key, me.number, me.slot, step, seq)
        return ShownCode(digits, self._local_end_ms(step))

    def _advance(self, now_step: int) -> tuple[int, int]:
        last = self._state_file.load()  # another process may have shown codes of this device
        step, seq = last.step, last.seq + 1
        # After the clock was set back a little, the last step lies ahead; the server still takes one step ahead.
        if not now_step <= step <= now_step + 1:
            step, seq = now_step, 0
        if seq > payment_code.SEQ_MAX:
            raise CodesExhausted(self._local_end_ms(step))
        self._state_file.change(step=step, seq=seq, clock_offset_ms=self.clock_offset_ms)  # before it is shown
        return step, seq

    def _local_end_ms(self, step: int) -> int:
        return (step + 1) * STEP_MS - self.clock_offset_ms
