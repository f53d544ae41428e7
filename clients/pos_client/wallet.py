"""A customer's wallet: it shows codes, with or without a connection, and hears what became of its payments."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from pydantic import TypeAdapter

from pos_server.core.device_keys import DeviceKind
from pos_server.core.messages import Error, Hello, WalletMessage, WalletPaymentResult, WalletReady

from .backoff import Backoff
from .codes import CodeSource, ShownCode
from .connection import DeviceClient, local_time_ms
from .credentials import Credentials
from .errors import CodesExhausted, ConnectionStopped

NOTICES_MAX = 100
"""Notices that wait to be read; the oldest is dropped for the newest."""
VERSIONS_MAX = 1000
"""Payments remembered to tell a repeated notice from a new one."""

log = logging.getLogger("pos_client")
_messages: TypeAdapter[Hello | WalletReady | WalletPaymentResult | Error] = TypeAdapter(WalletMessage)


class WalletClient(DeviceClient[WalletReady, WalletPaymentResult]):
    """One wallet device. `async with WalletClient(credentials) as wallet: …`; `code()` needs no connection.

    `state_file` keeps what must outlive a restart (codes.CodeSource). `now_ms` is this machine's clock, in Unix ms.
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
        super().__init__(credentials, DeviceKind.WALLET, _messages, backoff=backoff, now_ms=now_ms)
        self.balance_minor: int | None = None
        """The balance in minor units of the wallet's currency, as last told; None before the first connection."""
        self._codes = CodeSource(credentials, state_file=state_file, now_ms=now_ms)
        self.clock_offset_ms = self._codes.clock_offset_ms
        self._versions: OrderedDict[UUID, int] = OrderedDict()
        self._notices: asyncio.Queue[WalletPaymentResult | ConnectionStopped] = asyncio.Queue(NOTICES_MAX)

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

        Raises ConnectionStopped when no more will come.
        """
        notice = await self._notices.get()
        if isinstance(notice, ConnectionStopped):
            self._put(notice)  # the next caller hears it too
            raise notice
        return notice

    def _on_message(self, message: WalletPaymentResult | Error) -> None:
        if isinstance(message, Error):
            log.warning("the server reported an error: %s", message.code)
            return
        if message.version <= self._versions.get(message.payment_id, 0):
            return
        self._versions[message.payment_id] = message.version
        if len(self._versions) > VERSIONS_MAX:
            self._versions.popitem(last=False)
        self._codes.used()  # or that of another device of this wallet: the notice does not say
        self.balance_minor = message.balance_minor
        self._put(message)

    def _on_online(self, ready: WalletReady) -> None:
        self.balance_minor = ready.balance_minor
        self._codes.clock_offset_ms = self.clock_offset_ms

    def _on_offline(self) -> None:
        if self.stopped:
            self._put(self.stopped)

    def _put(self, notice: WalletPaymentResult | ConnectionStopped) -> None:
        if self._notices.full():
            self._notices.get_nowait()
            log.warning("notices are not read: the oldest of %d was dropped", NOTICES_MAX)
        self._notices.put_nowait(notice)
