"""`/v1/wallet`: customers' phones hear of their payments here."""

from typing import Never

import asyncpg

from ..connections import Connections
from ..core.device_keys import DeviceId, DeviceKind, Keyring
from ..core.errors import CloseCode, ConnectionClosing
from ..core.messages import Authenticate, PaymentScan, WalletReady
from ..ledger import directory
from ..settings import Settings
from .device import DeviceEndpoint, now_ms


class WalletEndpoint(DeviceEndpoint[None]):
    """A wallet only listens: its codes are made on the phone."""

    kind = DeviceKind.WALLET

    def __init__(self, settings: Settings, keyring: Keyring, connections: Connections, pool: asyncpg.Pool) -> None:
        super().__init__(settings, keyring, connections)
        self._pool = pool

    async def admit(self, message: Authenticate, nonce: bytes) -> tuple[WalletReady, None]:
        record = await directory.find_wallet_device(self._pool, message.id, message.slot)
        if record is None:
            raise ConnectionClosing(CloseCode.UNAUTHORIZED, "unknown device or wrong key")
        device = DeviceId(self.kind, message.id, message.slot)
        self.check_mac(message, nonce, device, record.kid, record.generation)
        ready = WalletReady(
            reply_to=message.message_id,
            server_time_ms=now_ms(),
            wallet_number=message.id,
            slot=message.slot,
            currency=record.currency,
            balance_minor=record.balance_minor,
        )
        return ready, None

    def handle(self, message: PaymentScan, device: DeviceId, admitted: None) -> Never:
        raise AssertionError("the session lets no message of a wallet through")
