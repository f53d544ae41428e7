"""The codes that a wallet's phone shows under load."""

from loadtest.shared.seed import Device
from pos_server.core.credentials import payment_code

# Before the first code of all: step and seq.
NONE_SHOWN = (0, payment_code.SEQ_MAX)
# As long as a code may be in the server's queue at most: it is checked when its turn comes.
_ON_ITS_WAY_S = 5.0


class Codes:
    """A wallet's codes: ten of this step, as a phone shows them, then ten of the next, which the server takes too."""

    __slots__ = ("_device", "_made", "_ready", "mark")

    def __init__(self, device: Device, mark: tuple[int, int] = NONE_SHOWN) -> None:
        self._device = device
        # Step and seq: of the last code that was shown, and of the last that was made.
        self.mark = self._made = mark
        # With their marks, the next one last.
        self._ready: list[tuple[tuple[int, int], str]] = []

    def prepare(self, now_s: float, codes: int) -> None:
        """Have codes ready: they are made by phones, not by the machine under test."""
        made = ((code, self._made) for _ in range(codes) if (code := self._make(now_s)) is not None)
        self._ready = [(mark, code) for code, mark in made][::-1]

    def next(self, now_s: float) -> str | None:
        """The next code that is valid now; None when the customer has to wait for one."""
        # The server takes those of the step before too.
        oldest_step = payment_code.step_at(now_s + _ON_ITS_WAY_S) - 1
        while self._ready:
            mark, code = self._ready.pop()
            if mark[0] >= oldest_step:
                self.mark = mark
                return code
        made = self._make(now_s)
        if made is not None:
            self.mark = self._made
        return made

    def _make(self, now_s: float) -> str | None:
        now_step = payment_code.step_at(now_s)
        step, seq = self._made
        if step < now_step:
            step, seq = now_step, 0
        elif seq < payment_code.SEQ_MAX:
            seq += 1
        elif step == now_step:
            step, seq = step + 1, 0
        else:
            return None
        self._made = step, seq
        device = self._device.device
        return payment_code.make(self._device.key, device.number, device.slot, step, seq)
