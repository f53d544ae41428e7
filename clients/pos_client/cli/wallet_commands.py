"""`pos-wallet show`, `code` and `balance`. The other commands are in wallet_requests.py."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from pos_server.core.credentials.device_keys import DeviceKind
from pos_server.core.money import format_amount

from ..device.connection import local_time_ms
from ..device.credentials import Credentials, device_path
from ..errors import ClientError, CodesExhausted
from ..wallet.client import Notice, WalletClient
from ..wallet.codes import CodeSource
from .console import ExitCode, print_error, print_line
from .keyboard import hidden_lines
from .wallet_screen import WalletScreen, alternate_screen, describe_notice

REDRAW_S = 0.5
FIRST_DRAW_S = 0.5
BALANCE_TIMEOUT_S = 10.0


def add_to(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", device_option: argparse.ArgumentParser
) -> None:
    """Add these commands to `pos-wallet`."""
    show = commands.add_parser(
        "show", parents=[device_option], help="show the code and notices of payments until Ctrl-C", allow_abbrev=False
    )
    show.set_defaults(command=_show)

    code = commands.add_parser(
        "code", parents=[device_option], help="print one new code, without a connection", allow_abbrev=False
    )
    code.add_argument("--png", type=_file_named(".png"), metavar="FILE.png", help="also draw it into a PNG file")
    code.add_argument("--svg", type=_file_named(".svg"), metavar="FILE.svg", help="also draw it into an SVG file")
    code.add_argument("--symbology", choices=("qr", "code128"), default="qr", help="kind of image (default qr)")
    code.set_defaults(command=_code)

    balance = commands.add_parser("balance", parents=[device_option], help="print the balance", allow_abbrev=False)
    balance.set_defaults(command=_balance)


def _code(args: argparse.Namespace) -> int:
    credentials, state_file = load_wallet(args)
    source = CodeSource(credentials, state_file=state_file)
    try:
        code = source.code()
    except CodesExhausted as error:
        wait_s = max(0, error.again_at_ms - local_time_ms()) / 1000
        print_error(f"{error} ({wait_s:.0f} s)")
        time.sleep(wait_s)
        code = source.code()
    for path in (args.png, args.svg):
        if path is not None:
            from ..images import save_code  # needs the demo extra

            save_code(code.digits, path, args.symbology)
    print_line(code.digits)
    return ExitCode.OK


def _balance(args: argparse.Namespace) -> int:
    credentials, state_file = load_wallet(args)

    async def balance_minor() -> int:
        async with WalletClient(credentials, state_file=state_file) as wallet:
            try:
                return (await asyncio.wait_for(wallet.ready(), BALANCE_TIMEOUT_S)).balance_minor
            except TimeoutError:
                raise ClientError(f"the balance is unknown: {wallet.problem}") from None

    print_line(format_amount(asyncio.run(balance_minor()), credentials.currency))
    return ExitCode.OK


def _show(args: argparse.Namespace) -> int:
    credentials, state_file = load_wallet(args)
    wallet = WalletClient(credentials, state_file=state_file, language=args.language)
    try:
        asyncio.run(_until_sigterm(_show_on_screen(wallet) if sys.stdout.isatty() else _show_as_lines(wallet)))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return ExitCode.OK


async def _until_sigterm(show: Coroutine[Any, Any, None]) -> None:
    """Run `show`; SIGTERM cancels it, as Ctrl-C does, so that the terminal is restored."""
    task = asyncio.create_task(show)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


async def _show_on_screen(wallet: WalletClient) -> None:
    from ..images import qr_terminal  # needs the demo extra

    screen = WalletScreen(wallet, qr_terminal)

    def on_line(line: str) -> None:
        if screen.dialog.is_open:
            screen.dialog.on_line(line)
        else:  # offline, the customer presses Enter after a scan to get the next code
            wallet.used()
        screen.draw()

    async with wallet:
        with suppress(TimeoutError):
            await asyncio.wait_for(wallet.ready(), FIRST_DRAW_S)
        with alternate_screen(), hidden_lines(on_line):
            try:
                while True:
                    screen.draw()
                    notice = await _notice(wallet)
                    if notice is not None:
                        screen.add(notice)
            finally:
                await screen.dialog.close()


async def _show_as_lines(wallet: WalletClient) -> None:
    shown_digits = ""
    async with wallet:
        while True:
            with suppress(CodesExhausted):  # the next step has new codes
                digits = wallet.code().digits
                if digits != shown_digits:
                    print_line(digits)
                    shown_digits = digits
            notice = await _notice(wallet)
            if notice is not None:
                print_error(describe_notice(notice))


async def _notice(wallet: WalletClient) -> Notice | None:
    """Return the next notice, or None when a redraw is due."""
    try:
        return await asyncio.wait_for(wallet.next_notice(), REDRAW_S)
    except TimeoutError:
        return None


def load_wallet(args: argparse.Namespace) -> tuple[Credentials, Path]:
    """Return the wallet's credentials and the path of its state file. Raises CredentialsError."""
    path = device_path(args.device)
    return Credentials.load(path, DeviceKind.WALLET), path.with_suffix(".state.json")


def _file_named(suffix: str) -> Callable[[str], Path]:
    def parse(text: str) -> Path:
        if not text.lower().endswith(suffix):
            raise argparse.ArgumentTypeError(f"the file name must end in {suffix}")
        return Path(text)

    return parse
