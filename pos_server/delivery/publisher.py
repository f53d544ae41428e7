"""Publishes committed outcomes: each notice goes to its devices here and at other servers."""

import time
from collections.abc import Callable

from starlette.websockets import WebSocket

from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.payments.declines import DeclineCode
from ..core.payments.operations import Decided, Outcome
from ..core.payments.payment import Payment, Status
from ..core.protocol.codec import (
    encode,
)
from ..core.protocol.notices import Notice, Recipient, notices
from ..core.rate_limits import FailureLimit
from .connections import Connection, Connections, SendNow
from .peers import Peers


class Publisher:
    """Delivers notices, and keeps this server's connections and its peers in step.

    `forged_codes` counts scans of forged codes by terminal number.
    """

    def __init__(
        self,
        connections: Connections,
        peers: Peers,
        forged_codes: FailureLimit,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._peers = peers
        self._forged_codes = forged_codes
        self._clock = clock

    def publish(self, outcome: Outcome, reply_to: str | None) -> None:
        """Notify everybody concerned of a committed outcome; the asker's notice answers `reply_to`."""
        wallet_online = True
        if isinstance(outcome, Decided):
            if not outcome.replayed and outcome.payment.decline_code is DeclineCode.CODE_INVALID:
                self._forged_codes.record(outcome.payment.terminal_number, self._clock())
            wallet_online = self.wallet_online(outcome.payment)
        for notice in notices(outcome, reply_to, wallet_online=wallet_online):
            self.notify(notice)

    def notify(self, notice: Notice) -> None:
        """Deliver a notice to its recipient's devices, wherever they are connected."""
        self._connections.deliver(notice.recipient, lambda language: encode(notice.render(language)))
        self._peers.notify(notice)

    def wallet_online(self, payment: Payment) -> bool:
        """Return whether a device of the wallet that must confirm a payment is connected anywhere.

        True for a payment that waits for nobody.
        """
        if payment.status is not Status.PENDING or payment.wallet_number is None:
            return True
        wallet = Recipient(DeviceKind.WALLET, payment.wallet_number)
        return self._connections.is_online(wallet) or self._peers.is_online(wallet)

    def arrival(self) -> float:
        """Return the time of a socket that has just come in: of two connections of a device the later one stays."""
        return self._connections.arrival()

    def open(
        self,
        device: DeviceId,
        generation: int,
        arrival: float,
        language: str,
        websocket: WebSocket,
        send_now: SendNow,
    ) -> Connection:
        """Register a device's socket here, and announce it to the peers. Raises ConnectionClosing."""
        connection = self._connections.open(device, generation, arrival, language, websocket, send_now)
        self._peers.opened(connection)
        return connection

    def forget(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self._connections.forget(connection)
        self._peers.closed(connection.device)

    def revoke(self, device: DeviceId, generation: int) -> None:
        """Close the device's connections whose key is of another generation, wherever they are."""
        self._connections.revoke(device, generation)
        self._peers.revoked(device, generation)
