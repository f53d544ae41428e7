"""`/v1/wallet`: customers' phones hear of their payments here."""

from collections.abc import Sequence
from typing import Never

import asyncpg

from ..admission import Admission
from ..connections import Connections
from ..core.device_keys import DeviceId, DeviceKind, Keyring
from ..core.errors import CloseCode, ConnectionClosing
from ..core.messages import Authenticate, PaymentScan, ServerMessage, WalletReady
from ..core.notices import wallet_notice
from ..core.payments import Payment
from ..ledger import directory
from ..ledger.directory import WalletDeviceRecord
from ..ledger.ledger import wallet_payments_since
from ..settings import Settings
from .device import Admitted, DeviceEndpoint, now_ms


class WalletEndpoint(DeviceEndpoint[WalletDeviceRecord]):
    """A wallet only listens: its codes are made on the phone."""

    kind = DeviceKind.WALLET

    def __init__(
        self,
        settings: Settings,
        keyring: Keyring,
        admission: Admission,
        connections: Connections,
        pool: asyncpg.Pool,
    ) -> None:
        super().__init__(settings, keyring, admission, connections)
        self._pool = pool

    async def admit(self, message: Authenticate, nonce: bytes) -> Admitted[WalletDeviceRecord]:
        record = await directory.find_wallet_device(self._pool, message.id, message.slot)
        if record is None:
            raise ConnectionClosing(CloseCode.UNAUTHORIZED, "unknown device or wrong key")
        device = DeviceId(self.kind, message.id, message.slot)
        self.check_mac(message, nonce, device, record.kid, record.generation)
        return Admitted(device, record.generation, record)

    async def resume(
        self, message: Authenticate, admitted: Admitted[WalletDeviceRecord]
    ) -> tuple[WalletReady, Sequence[ServerMessage]]:
        time_ms, missed, resumed = now_ms(), list[ServerMessage](), True
        payments = list[tuple[Payment, str, str]]()
        if message.since_ms is not None:
            since_ms = message.since_ms - int(self._settings.resume_overlap_s * 1000)
            payments_max = self._settings.resume_payments_max
            payments = await wallet_payments_since(self._pool, message.id, since_ms, payments_max + 1)
            resumed = len(payments) <= payments_max
        # After the payments: a balance must never be older than what it is told with.
        balance_minor = await directory.wallet_balance(self._pool, message.id)
        if resumed:
            missed = [
                wallet_notice(payment, merchant_name, store_name, balance_minor)
                for payment, merchant_name, store_name in payments
            ]
        ready = WalletReady(
            reply_to=message.message_id,
            server_time_ms=time_ms,
            resumed=resumed,
            wallet_number=message.id,
            slot=message.slot,
            currency=admitted.record.currency,
            balance_minor=balance_minor,
        )
        return ready, missed

    def handle(self, message: PaymentScan, admitted: Admitted[WalletDeviceRecord]) -> Never:
        raise AssertionError("the session lets no message of a wallet through")
