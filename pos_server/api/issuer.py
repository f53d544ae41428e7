"""Handlers of the role `issuer`: wallets with their limits and devices, cash, and wallet statements."""

from http import HTTPStatus

import asyncpg
from msgspec.structs import asdict

from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.errors import ErrorCode
from ..core.payments.operations import Cancel, MoveCash
from ..core.payments.payment import Payment, Purpose
from ..core.payments.snapshot import OwnLimits, WalletStatus
from ..core.protocol.notices import status_notice, terminal_notice
from ..core.rest.fields import NoParameters, Page, Paging
from ..core.rest.idempotency import derived_id
from ..core.rest.issuer import (
    CashCreate,
    CashPath,
    CashPayment,
    CashQuery,
    Wallet,
    WalletChange,
    WalletCreate,
    WalletDevice,
    WalletDeviceActivation,
    WalletDeviceCreate,
    WalletDevicePath,
    WalletLimits,
    WalletLimitsReplace,
    WalletPath,
    WalletTransfer,
)
from ..core.rest.problems import ProblemCode
from ..core.texts import DEFAULT_LANGUAGE
from ..delivery.publisher import Publisher
from ..ledger import directory, wallets
from ..ledger.database import AnyConnection
from .support.activation_codes import issue_code, with_code
from .support.dispatch import ApiCall, Handler, Reply
from .support.engine_client import EngineClient
from .support.etags import etag, require_match
from .support.idempotent_create import IdempotentCreate
from .support.pages import after_id, before_id, page
from .support.problems import problem
from .support.times import rfc3339_of_ms, rfc3339_or_none

_WalletCall = ApiCall[WalletPath, NoParameters, None]
_CashCall = ApiCall[CashPath, CashQuery, None]


class Issuer:
    """Handlers of the role `issuer`."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        creator: IdempotentCreate,
        engine: EngineClient,
        publisher: Publisher,
        *,
        activation_ttl_s: float,
    ) -> None:
        self._activation_ttl_s = activation_ttl_s
        self._pool = pool
        self._creator = creator
        self._engine = engine
        self._publisher = publisher

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by the names of ISSUER_ENDPOINTS."""
        return {
            "createWallet": self.create_wallet,
            "listWallets": self.list_wallets,
            "getWallet": self.get_wallet,
            "changeWallet": self.change_wallet,
            "resetWalletPin": self.reset_pin,
            "getWalletLimits": self.get_limits,
            "replaceWalletLimits": self.replace_limits,
            "listWalletDevices": self.list_devices,
            "createWalletDevice": self.create_device,
            "revokeWalletDevice": self.revoke_device,
            "listWalletTransfers": self.list_transfers,
            "createTopUp": self.create_top_up,
            "getTopUp": self.get_top_up,
            "cancelTopUp": self.cancel_top_up,
            "createWithdrawal": self.create_withdrawal,
            "getWithdrawal": self.get_withdrawal,
            "cancelWithdrawal": self.cancel_withdrawal,
        }

    # --- wallets

    async def create_wallet(self, call: ApiCall[NoParameters, NoParameters, WalletCreate]) -> Reply:
        async def create(connection: AnyConnection, secret: bytes) -> Wallet:
            number = await directory.create_wallet(connection, call.body.name, call.body.currency)
            return await _find_wallet(connection, number)

        return await self._creator.create(call, Wallet, create)

    async def list_wallets(self, call: ApiCall[NoParameters, Paging, None]) -> Reply:
        rows = await wallets.list_wallets(self._pool, after_id(call.query), call.query.limit + 1)
        resources = [_wallet(row) for row in rows]
        return Reply(page(Page[Wallet], resources, call.query, lambda wallet: str(wallet.wallet_number)))

    async def get_wallet(self, call: _WalletCall) -> Reply:
        return Reply(await _find_wallet(self._pool, call.parameters.wallet_number))

    async def change_wallet(self, call: ApiCall[WalletPath, NoParameters, WalletChange]) -> Reply:
        number, status = call.parameters.wallet_number, WalletStatus(call.body.status)
        async with self._pool.acquire() as connection, connection.transaction():
            await directory.set_wallet_status(connection, number, status)
            wallet = await _find_wallet(connection, number)
        # Also for a repeat: the first request may have been interrupted between its commit and this call.
        self._publisher.notify(status_notice(number, status))
        return Reply(wallet)

    async def reset_pin(self, call: _WalletCall) -> Reply:
        async with self._pool.acquire() as connection, connection.transaction():
            await directory.reset_pin(connection, call.parameters.wallet_number)
            return Reply(await _find_wallet(connection, call.parameters.wallet_number))

    async def list_transfers(self, call: ApiCall[WalletPath, Paging, None]) -> Reply:
        number = call.parameters.wallet_number
        await _find_wallet(self._pool, number)
        rows = await wallets.list_transfers(self._pool, number, before_id(call.query), call.query.limit + 1)
        transfers = [_transfer(row) for row in rows]
        return Reply(page(Page[WalletTransfer], transfers, call.query, lambda transfer: str(transfer.transfer_id)))

    # --- limits

    async def get_limits(self, call: _WalletCall) -> Reply:
        return _limits_reply(await _find_limits(self._pool, call.parameters.wallet_number))

    async def replace_limits(self, call: ApiCall[WalletPath, NoParameters, WalletLimitsReplace]) -> Reply:
        number = call.parameters.wallet_number
        async with self._pool.acquire() as connection, connection.transaction():
            require_match(call.if_match, await _find_limits(connection, number, for_update=True))
            await wallets.set_own_limits(connection, number, OwnLimits(**call.body.model_dump()))
            return _limits_reply(await _find_limits(connection, number))

    # --- devices

    async def list_devices(self, call: ApiCall[WalletPath, Paging, None]) -> Reply:
        await _find_wallet(self._pool, call.parameters.wallet_number)
        # The cursor is the last slot of the previous page.
        after = -1 if call.query.cursor is None else after_id(call.query)
        rows = await wallets.list_devices(self._pool, call.parameters.wallet_number)
        devices = [WalletDevice(**row) for row in rows if row["slot"] > after]
        return Reply(page(Page[WalletDevice], devices, call.query, lambda device: str(device.slot)))

    async def create_device(self, call: ApiCall[WalletPath, NoParameters, WalletDeviceCreate]) -> Reply:
        number = call.parameters.wallet_number

        async def create(connection: AnyConnection, secret: bytes) -> WalletDeviceActivation:
            # The lock prevents two requests from getting the same slot.
            if not await wallets.lock_wallet(connection, number):
                raise problem(ProblemCode.NOT_FOUND)
            slot = await wallets.free_slot(connection, number) if call.body.slot is None else call.body.slot
            if slot is None:
                raise problem(ProblemCode.NO_FREE_SLOT)
            device = DeviceId(DeviceKind.WALLET, number, slot)
            expires_at = await issue_code(connection, device, secret, self._activation_ttl_s)
            return WalletDeviceActivation(wallet_number=number, slot=slot, activation_code=None, expires_at=expires_at)

        return await self._creator.create(call, WalletDeviceActivation, create, with_code)

    async def revoke_device(self, call: ApiCall[WalletDevicePath, NoParameters, None]) -> Reply:
        number, slot = call.parameters.wallet_number, call.parameters.slot
        async with self._pool.acquire() as connection, connection.transaction():
            generation = await wallets.revoke_device(connection, number, slot)
        if generation is None:
            raise problem(ProblemCode.NOT_FOUND)
        device = DeviceId(DeviceKind.WALLET, number, slot)
        self._publisher.revoke(device, generation)
        return Reply(WalletDevice(slot=slot, status="revoked"))

    # --- cash

    async def create_top_up(self, call: ApiCall[NoParameters, NoParameters, CashCreate]) -> Reply:
        return await self._move_cash(call, Purpose.TOP_UP)

    async def get_top_up(self, call: _CashCall) -> Reply:
        return Reply(_cash_payment(await self._find_payment(call, Purpose.TOP_UP)))

    async def cancel_top_up(self, call: _CashCall) -> Reply:
        return await self._cancel(call, Purpose.TOP_UP)

    async def create_withdrawal(self, call: ApiCall[NoParameters, NoParameters, CashCreate]) -> Reply:
        return await self._move_cash(call, Purpose.WITHDRAWAL)

    async def get_withdrawal(self, call: _CashCall) -> Reply:
        return Reply(_cash_payment(await self._find_payment(call, Purpose.WITHDRAWAL)))

    async def cancel_withdrawal(self, call: _CashCall) -> Reply:
        return await self._cancel(call, Purpose.WITHDRAWAL)

    async def _move_cash(self, call: ApiCall[NoParameters, NoParameters, CashCreate], purpose: Purpose) -> Reply:
        body = call.body
        merchant = await directory.find_merchant(self._pool, body.merchant_id)
        if merchant is None:
            raise problem(ProblemCode.NOT_FOUND, "Unknown merchant.", pointer="/merchant_id")
        payment_id = derived_id(call.key.tenant, call.endpoint.name, call.idempotency_key)
        # The id is unique per merchant only, so the engine cannot notice a repeat that names another merchant.
        if await wallets.is_paid_elsewhere(self._pool, payment_id, body.merchant_id):
            raise problem(ErrorCode.ID_REUSED)
        operation = MoveCash(
            payment_id=payment_id,
            merchant_id=body.merchant_id,
            wallet_number=body.wallet_number,
            reference=str(payment_id) if body.reference is None else body.reference,
            amount_minor=body.amount_minor,
            currency=merchant["currency"],
            purpose=purpose,
        )
        outcome = await self._engine.decide(operation)
        return Reply(_cash_payment(outcome.payment), HTTPStatus.OK if outcome.replayed else HTTPStatus.CREATED)

    async def _cancel(self, call: _CashCall, purpose: Purpose) -> Reply:
        payment = await self._find_payment(call, purpose)
        # A payment disappears only into the archive, so the cancel finds it too and leaves no tombstone.
        cancel = Cancel(
            terminal_number=None,
            merchant_id=payment.merchant_id,
            currency=payment.currency,
            payment_id=payment.payment_id,
            reference=None,
            tombstone_id=payment.payment_id,
        )
        return Reply(_cash_payment((await self._engine.decide(cancel)).payment))

    async def _find_payment(self, call: _CashCall, purpose: Purpose) -> Payment:
        payment_id, merchant_id = call.parameters.payment_id, call.query.merchant_id
        if merchant_id is None:
            merchants = await wallets.merchants_of_cash(self._pool, payment_id, purpose)
            if len(merchants) > 1:
                raise problem(ProblemCode.MERCHANT_AMBIGUOUS)
            if not merchants:
                raise problem(ErrorCode.PAYMENT_UNKNOWN)
            merchant_id = merchants[0]
        payment = await wallets.find_cash(self._pool, payment_id, merchant_id, purpose)
        if not isinstance(payment, Payment):
            raise problem(payment)
        return payment


async def _find_wallet(connection: AnyConnection | asyncpg.Pool, number: int) -> Wallet:
    row = await wallets.find_wallet(connection, number)
    if row is None:
        raise problem(ProblemCode.NOT_FOUND)
    return _wallet(row)


def _wallet(row: asyncpg.Record) -> Wallet:
    return Wallet(**{**row, "pin_locked_until": rfc3339_or_none(row["pin_locked_until"])})


async def _find_limits(
    connection: AnyConnection | asyncpg.Pool, number: int, *, for_update: bool = False
) -> WalletLimits:
    limits = await wallets.find_own_limits(connection, number, for_update=for_update)
    if limits is None:
        raise problem(ProblemCode.NOT_FOUND)
    return WalletLimits(wallet_number=number, **asdict(limits))


def _limits_reply(limits: WalletLimits) -> Reply:
    return Reply(limits, etag=etag(limits))


def _cash_payment(payment: Payment) -> CashPayment:
    return CashPayment.model_validate(
        {
            "payment_id": payment.payment_id,
            "purpose": payment.purpose,
            "status": payment.status,
            "decline_code": payment.decline_code,
            "text": terminal_notice(payment, None, DEFAULT_LANGUAGE).text,
            "wallet_number": payment.wallet_number,
            "merchant_id": payment.merchant_id,
            "terminal_number": payment.terminal_number,
            "reference": payment.reference,
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
            "version": payment.version,
            "decided_at": rfc3339_of_ms(payment.changed_at_ms),
        }
    )


def _transfer(row: asyncpg.Record) -> WalletTransfer:
    return WalletTransfer(
        transfer_id=row["id"] or None,
        kind=row["kind"],
        amount_minor=row["amount_minor"],
        balance_minor=row["balance_minor"],
        counterpart=row["counterpart"],
        merchant_id=row["merchant_id"],
        payment_id=row["payment_id"],
        created_at=rfc3339_or_none(row["created_at"]),
    )
