"""Shared helpers: settings, a shop with its devices, messages and sockets."""

import asyncio
import base64
import itertools
import json
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import uuid_utils.compat
from websockets.asyncio.client import ClientConnection, connect

from pos_server.core.credentials import payment_code
from pos_server.core.credentials.device_keys import DeviceId, DeviceKind, Keyring, authentication_mac
from pos_server.core.payments.decide import decide
from pos_server.core.payments.operations import Decided, MoveCash, Scan
from pos_server.core.payments.payment import Purpose, Status
from pos_server.engine.authorizer import LANE_PAUSE_S_MAX, Authorizer
from pos_server.ledger import directory
from pos_server.ledger.payments import apply_changes, load_snapshot
from pos_server.settings import Settings, load_settings
from pos_server.supervision import Supervisor

KEYRING = Keyring({"k1": bytes(range(32))}, current="k1")
MASTER_KEYS = f"k1:{base64.b64encode(KEYRING.keys['k1']).decode()}"
EUR = "EUR"
# Raised by `apply_changes` if another server changed the rows first.
LEDGER_CONFLICT = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError)
ANSWER_TIMEOUT_S = 15
WIDE_LIMITS = {
    "payment_minor_max": 2**53 - 1,
    "day_minor_max": 2**53 - 1,
    "top_up_minor_max": 2**53 - 1,
    "balance_minor_max": 2**53 - 1,
    "pin_free_minor_max": 2**53 - 1,
    "pin_free_day_count_max": 2**53 - 1,
    "pin_free_day_minor_max": 2**53 - 1,
    "pin_argon2_memory_kib": 8,
    "pin_argon2_passes": 1,
}
RULES = load_settings(**WIDE_LIMITS).rules()
_orders = itertools.count(1)


def settings(**overrides: object) -> Settings:
    """Return settings for a server under test: a free port, short timeouts, cheap PIN hashes, and very high limits."""
    return load_settings(**({"port": 0, "drain_timeout_s": 2, "expiry_check_s": 0.05} | WIDE_LIMITS | overrides))


@dataclass(slots=True)
class TestDevice:
    """An activated device with its key. A wallet increments `seq` within a step."""

    __test__ = False

    device: DeviceId
    kid: str
    key: bytes
    _used: dict[int, int] = field(default_factory=dict)

    def code(self, *, steps: int = 0, seq: int | None = None, now_s: float | None = None) -> str:
        """Return a new payment code of the current step, or of a step `steps` away."""
        step = payment_code.step_at(time.time() if now_s is None else now_s) + steps
        if seq is None:
            seq = self._used.get(step, -1) + 1
            self._used[step] = seq
        return payment_code.make(self.key, self.device.number, self.device.slot, step, seq)


@dataclass(slots=True)
class Shop:
    merchant_id: int
    store_id: int
    terminals: list[TestDevice]
    wallets: list[TestDevice]

    def scan(self, wallet: int = 0, *, code: str | None = None, terminal: int = 0, **fields: Any) -> Scan:
        """Return a scan of a wallet's new code for 10.00 EUR and a new order; `fields` override its values."""
        values: dict[str, Any] = {
            "payment_id": new_id(),
            "terminal_number": self.terminals[terminal].device.number,
            "merchant_id": self.merchant_id,
            "reference": f"order-{next(_orders)}",
            "amount_minor": 1000,
            "currency": EUR,
            "code": self.wallets[wallet].code() if code is None else code,
        }
        return Scan(**(values | fields))


@dataclass(slots=True)
class OneConnection:
    """A pool with one connection, which the test uses too."""

    connection: asyncpg.Connection

    def acquire(self) -> nullcontext[asyncpg.Connection]:
        return nullcontext(self.connection)


def open_directory(prefix: str, *, parent: str | None = None) -> Path:
    """Make a temporary directory that every user may enter, as root's Postgres user must."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    path.chmod(0o711)
    return path


def new_id() -> uuid.UUID:
    return uuid_utils.compat.uuid7()


async def build_shop(
    connection: asyncpg.Connection, *, terminals: int = 2, wallets: int = 3, balance_minor: int = 10_000
) -> Shop:
    merchant_id = await directory.create_merchant(connection, "Corner Canteen", EUR)
    store_id = await directory.create_store(connection, merchant_id, "Main hall")
    shop = Shop(merchant_id, store_id, [], [])
    for index in range(terminals):
        number = await directory.create_terminal(connection, store_id, f"Till {index}")
        shop.terminals.append(await activated(connection, DeviceId(DeviceKind.TERMINAL, number)))
    for index in range(wallets):
        number = await directory.create_wallet(connection, f"Customer {index}", EUR)
        if balance_minor:
            # A day ago, so that no device receives a notice of it.
            day_ago_ms = int((time.time() - 86_400) * 1000)
            await top_up(connection, new_id(), merchant_id, number, balance_minor, EUR, now_ms=day_ago_ms)
        shop.wallets.append(await activated(connection, DeviceId(DeviceKind.WALLET, number)))
    return shop


async def top_up(
    connection: asyncpg.Connection,
    payment_id: uuid.UUID,
    merchant_id: int,
    wallet_number: int,
    amount_minor: int,
    currency: str,
    *,
    now_ms: int,
) -> int:
    """Credit a wallet from house cash, at any time and without limits. Returns the new balance."""
    move = MoveCash(
        payment_id, merchant_id, wallet_number, f"top-up-{payment_id}", amount_minor, currency, Purpose.TOP_UP
    )
    snapshot = await load_snapshot(connection, [move])
    (outcome,), changes = decide([move], snapshot, KEYRING, now_ms, RULES, day_start_ms=0)
    assert isinstance(outcome, Decided)
    assert outcome.payment.status is Status.APPROVED
    assert outcome.wallet is not None
    await apply_changes(connection, changes, now_ms)
    return outcome.wallet.balance_minor


async def activated(connection: asyncpg.Connection, device: DeviceId) -> TestDevice:
    """Activate a device through the rows that an activation over HTTP writes, and return it with its key."""
    code = str(new_id())
    await directory.issue_activation(connection, device, code, ttl_s=60)
    result = await directory.use_activation(connection, code, new_id(), KEYRING.current)
    assert result is not None
    key = KEYRING.device_key(result.kid, device, result.generation)
    assert key is not None
    return TestDevice(device, result.kid, key)


def http_client(url: str, key: str | None = None) -> httpx.AsyncClient:
    """A client of a server's REST API. It loads no certificates, which takes longer than most requests."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, verify=False)


@asynccontextmanager
async def working(authorizer: Authorizer) -> AsyncIterator[Supervisor]:
    """Run the lanes of an engine until the block ends."""
    supervisor = Supervisor()
    for number, lane in enumerate(authorizer.lanes(), 1):
        supervisor.start(f"lane-{number}", lane, needed=True, pause_s_max=LANE_PAUSE_S_MAX)
    try:
        yield supervisor
    finally:
        await supervisor.stop()


@asynccontextmanager
async def raw_socket(url: str, kind: DeviceKind, **options: Any) -> AsyncIterator[ClientConnection]:
    """Yield a WebSocket to the server, before any message."""
    address = f"{url.replace('http', 'ws', 1)}/v1/{kind}"
    async with connect(address, subprotocols=["pos.v1"], compression=None, **options) as socket:  # type: ignore[list-item]
        yield socket


@asynccontextmanager
async def logged_in(url: str, device: TestDevice, **fields: Any) -> AsyncIterator[ClientConnection]:
    """Yield an authenticated WebSocket, after `ready`."""
    async with raw_socket(url, device.device.kind) as socket:
        hello = await receive(socket)
        await socket.send(json.dumps(authenticate(device, hello["nonce"], **fields)))
        ready = await receive(socket)
        assert ready["type"] == "ready", ready
        yield socket


def authenticate(device: TestDevice, nonce: str, **fields: Any) -> dict[str, Any]:
    mac = authentication_mac(device.key, bytes.fromhex(nonce), device.device.number)
    message = {
        "type": "authenticate",
        "message_id": "auth",
        "id": device.device.number,
        "slot": device.device.slot,
        "kid": device.kid,
        "mac": mac.hex(),
    }
    return message | fields


def scan_message(code: str, **fields: Any) -> dict[str, Any]:
    message = {
        "type": "payment.scan",
        "message_id": f"m{next(_orders)}",
        "payment_id": str(new_id()),
        "reference": f"order-{next(_orders)}",
        "amount_minor": 1000,
        "currency": EUR,
        "code": code,
    }
    return message | fields


async def ask(socket: ClientConnection, message: dict[str, Any]) -> dict[str, Any]:
    """Send a message and return the next one received."""
    await socket.send(json.dumps(message))
    return await receive(socket)


async def receive(socket: ClientConnection) -> dict[str, Any]:
    """Return the next message. Raises TimeoutError."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        answer: dict[str, Any] = json.loads(await socket.recv())
    return answer


def forged(code: str) -> str:
    """Return the code with another last digit."""
    return code[:-1] + str((int(code[-1]) + 1) % 10)
