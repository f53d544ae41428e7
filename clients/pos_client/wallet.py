"""A customer's wallet: it shows codes, with or without a connection, and hears what became of its payments."""

import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter

from pos_server.core.device_keys import DeviceKind
from pos_server.core.messages import Draining, Error, Hello, WalletMessage, WalletPaymentResult, WalletReady

from .backoff import Backoff
from .codes import CodeSource, ShownCode
from .connection import DeviceClient, local_time_ms
from .credentials import Credentials
from .errors import CodesExhausted, CredentialsError
from .inbox import Inbox
from .resume import Resume
from .wallet_state import WalletStateFile

NOTICES_MAX = 100
"""Notices that wait to be read; the oldest is dropped for the newest."""

log = logging.getLogger("pos_client")
_messages: TypeAdapter[Hello | WalletReady | WalletPaymentResult | Draining | Error] = TypeAdapter(WalletMessage)


class WalletClient(DeviceClient[WalletReady, WalletPaymentResult]):
    """One wallet device. `async with WalletClient(credentials) as wallet: …`; `code()` needs no connection.

    `state_file` keeps what must outlive a restart (wallet_state.py): with it, a new process hears of the payments that
    it missed in between. `now_ms` is this machine's clock, in Unix ms.
    Raises CredentialsError for a terminal's credentials and for a state file that cannot be read.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        state_file: Path | None = None,
        backoff: Backoff | None = None,
        now_ms: Callable[[], int] = local_time_ms,
    ) -> None:
        self._state_file = WalletStateFile(state_file)
        resume = Resume(self._state_file.state.since_ms)
        super().__init__(credentials, DeviceKind.WALLET, _messages, backoff=backoff, resume=resume, now_ms=now_ms)
        self.balance_minor: int | None = None
        """The balance in minor units of the wallet's currency, as last told; None before the first connection."""
        self._codes = CodeSource(credentials, state_file=state_file, now_ms=now_ms)
        self.clock_offset_ms = self._codes.clock_offset_ms
        self._notices: Inbox[WalletPaymentResult] = Inbox(NOTICES_MAX)

    async def __aexit__(self, *exception: object) -> None:
        await super().__aexit__(*exception)
        self._remember()

    def code(self) -> ShownCode:
        """The code to show now: the same until it is used or its step is over.

        Raises CodesExhausted when the ten codes of this step are used, CredentialsError when the state file cannot
        be written.
        """
        return self._codes.code()

    def used(self) -> None:
        """Show another code from now on. A notice does so by itself; without a connection the customer asks for it."""
        self._codes.used()

    async def next_code(self) -> ShownCode:
        """Like `code`, but waits for the next step when the codes of this one are used."""
        while True:
            try:
                return self.code()
            except CodesExhausted as error:
                await self._backoff.sleep(max(0, error.again_at_ms - self._now_ms()) / 1000)

    async def notice(self) -> WalletPaymentResult:
        """Wait for the next word on a payment of this wallet; each version of each payment comes once.

        After a restart, those of the last seconds may come again. What was not read comes again in any case, if there
        is a state file: asking for the next notice says that the one before has been dealt with. Raises
        ConnectionStopped when no more will come.
        """
        self._remember()
        return await self._notices.get()

    def _remember(self) -> None:
        """Keep what to resume from, unless a notice waits to be read: a restart must hear of that one."""
        since_ms = self._resume.since_ms
        if len(self._notices) or since_ms is None or since_ms == self._state_file.state.since_ms:
            return
        try:
            self._state_file.change(since_ms=since_ms)
        except CredentialsError as error:  # the next code says so too; for a notice it is no reason to fail
            log.warning("%s", error)

    def _on_message(self, message: WalletPaymentResult | Error) -> None:
        if isinstance(message, Error):
            log.warning("the server reported an error: %s", message.code)
            return
        if not self._resume.on_result(message.payment_id, message.version, message.decided_at_ms):
            return
        self._codes.used()  # or that of another device of this wallet: the notice does not say
        self.balance_minor = message.balance_minor
        self._notices.put(message)

    def _on_online(self, ready: WalletReady) -> None:
        self.balance_minor = ready.balance_minor
        self._codes.clock_offset_ms = self.clock_offset_ms
        self._remember()

    def _on_offline(self) -> None:
        if self.stopped:
            self._notices.put(self.stopped)
