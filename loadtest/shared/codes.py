"""Payment codes of a wallet under load."""

from loadtest.shared.seed import Device
from pos_server.core.credentials import payment_code

# Step and seq before the first code.
NONE_SHOWN = (0, payment_code.SEQ_MAX)
# A phone shows this many codes of a step.
CODES_SHOWN = payment_code.SEQ_MAX + 1
# A code is checked when the server takes it out of its queue, at most this much later.
_QUEUE_S_MAX = 5.0


class Codes:
    """The codes of one device: ten of this step, as a phone shows them, then ten of the next, also accepted."""

    __slots__ = ("_device", "_last_made", "_ready", "mark")

    def __init__(self, device: Device, mark: tuple[int, int] = NONE_SHOWN) -> None:
        self._device = device
        # Step and seq of the last code shown, and of the last code made.
        self.mark = self._last_made = mark
        # Codes made in advance with their step and seq, in reverse order.
        self._ready: list[tuple[tuple[int, int], str]] = []

    def prepare(self, now_s: float, codes: int) -> None:
        """Make codes in advance, so that this work, which phones do, does not load the machine under test."""
        pairs = ((code, self._last_made) for _ in range(codes) if (code := self._make(now_s)) is not None)
        self._ready = [(mark, code) for code, mark in pairs][::-1]

    def next(self, now_s: float) -> str | None:
        """Return the next code that is valid now, None if the customer has to wait for one."""
        # The server also accepts the previous step.
        oldest_step = payment_code.step_at(now_s + _QUEUE_S_MAX) - 1
        while self._ready:
            mark, code = self._ready.pop()
            if mark[0] >= oldest_step:
                self.mark = mark
                return code
        new_code = self._make(now_s)
        if new_code is not None:
            self.mark = self._last_made
        return new_code

    def left(self, now_s: float) -> int:
        """Return how many more codes can be made now: at most those of this step and of the next."""
        now_step = payment_code.step_at(now_s)
        step, seq = max(self._last_made, (now_step - 1, payment_code.SEQ_MAX))
        return (now_step + 1 - step) * CODES_SHOWN + payment_code.SEQ_MAX - seq

    def _make(self, now_s: float) -> str | None:
        now_step = payment_code.step_at(now_s)
        step, seq = self._last_made
        if step < now_step:
            step, seq = now_step, 0
        elif seq < payment_code.SEQ_MAX:
            seq += 1
        elif step == now_step:
            step, seq = step + 1, 0
        else:
            return None
        self._last_made = step, seq
        device = self._device.device
        return payment_code.make(self._device.key, device.number, device.slot, step, seq)
