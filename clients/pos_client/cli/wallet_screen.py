"""The screen of `pos-wallet show`: the current code and the latest notices."""

import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pos_server.core.money import format_amount
from pos_server.core.payments.payment import Status
from pos_server.core.payments.snapshot import WalletStatus
from pos_server.core.protocol.server_messages import (
    ConfirmationRequired,
    PinChanged,
    StatusChanged,
    WalletPaymentResult,
)

from ..device.connection import local_time_ms
from ..errors import CodesExhausted
from ..wallet.client import Notice, WalletClient
from ..wallet.codes import ShownCode
from .console import clock_time, group_digits, printable
from .pin_dialog import PinDialog

NOTICES_SHOWN = 3
_QR_COLUMNS = 29
_QR_LINES = 15
_OTHER_LINES = 4

_ALTERNATE_SCREEN = "\x1b[?1049h\x1b[?25l"
_NORMAL_SCREEN = "\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_BOLD = "\x1b[1m"
_PLAIN = "\x1b[0m"
_CLEAR_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[J"


@contextmanager
def alternate_screen() -> Iterator[None]:
    """Switch to the terminal's alternate screen without a cursor, and always switch back at the end."""
    sys.stdout.write(_ALTERNATE_SCREEN)
    try:
        yield
    finally:
        sys.stdout.write(_NORMAL_SCREEN)
        sys.stdout.flush()


class WalletScreen:
    """The screen of one wallet. It overwrites the previous frame without clearing it, so nothing flickers.

    `qr` turns digits into lines of text (images.qr_terminal). `dialog` handles payments that wait for the PIN.
    """

    def __init__(self, wallet: WalletClient, qr: Callable[[str], str]) -> None:
        self._wallet = wallet
        self._qr = qr
        self._notices: deque[str] = deque(maxlen=NOTICES_SHOWN)
        self.dialog = PinDialog(wallet, self.add)

    def add(self, notice: Notice) -> None:
        """Add a notice to the screen and pass it to the dialog."""
        self.dialog.on_notice(notice)
        self._notices.appendleft(describe_notice(notice))

    def draw(self) -> None:
        """Draw the current state."""
        size = shutil.get_terminal_size()
        lines = self._lines(size.columns, size.lines)[: size.lines - 1]
        sys.stdout.write(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW)
        sys.stdout.flush()

    def _lines(self, columns: int, rows: int) -> list[str]:
        wallet = self._wallet
        credentials = wallet.credentials
        balance = "not known yet"
        if wallet.balance_minor is not None:
            balance = format_amount(wallet.balance_minor, credentials.currency)
        status = "" if wallet.status in (None, WalletStatus.ACTIVE) else f", {wallet.status}"
        state = "Online." if wallet.problem is None else f"Offline, but the code works: {wallet.problem}."
        head = [f"Wallet {credentials.number}, {credentials.name}. Balance {balance}{status}", state]
        question = [f"{_BOLD}{_cut(line, columns)}{_PLAIN}" for line in self.dialog.prompt()]
        qr: list[str] = []
        try:
            qr, text = self._code_lines(wallet.code(), columns, rows - len(question))
        except CodesExhausted as error:
            text = [f"All codes of this half minute are used. Next code in {_seconds(error.again_at_ms)} s."]
        tail = [*text, *self._notices]
        if wallet.may_have_missed:
            tail.append("Some earlier payments may be missing here.")
        return [*(_cut(line, columns) for line in head), *question, *qr, *(_cut(line, columns) for line in tail)]

    def _code_lines(self, code: ShownCode, columns: int, rows: int) -> tuple[list[str], list[str]]:
        hint = f"New code in {_seconds(code.valid_until_ms)} s, or press Enter. Ctrl-C ends."
        text = [group_digits(code.digits), hint]
        if columns < _QR_COLUMNS or rows < _QR_LINES + _OTHER_LINES + 1:
            return [], [*text, "Enlarge the window to see the QR code."]
        return self._qr(code.digits).splitlines(), text


def describe_notice(notice: Notice) -> str:
    """Describe a notice in one line, such as `12:30:05 + You paid 3.20 EUR to Canteen.`"""
    match notice:
        case WalletPaymentResult():
            sign = "+" if notice.status == Status.APPROVED else "!"
        case ConfirmationRequired():
            sign = "?"
        case PinChanged() | StatusChanged():
            return f"{clock_time(local_time_ms())} * {printable(notice.text)}"
        case _:
            sign = "+"
    return f"{clock_time(notice.decided_at_ms)} {sign} {printable(notice.text)}"


def _seconds(until_ms: int) -> int:
    return max(0, -(-(until_ms - local_time_ms()) // 1000))


def _cut(line: str, columns: int) -> str:
    return printable(line)[:columns]
