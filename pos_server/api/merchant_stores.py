"""Handlers of the role `merchant`: stores and terminals."""

from typing import Any

import asyncpg

from ..core.credentials.device_keys import DeviceId, DeviceKind
from ..core.payments.snapshot import TerminalStatus
from ..core.protocol.notices import status_notice
from ..core.rest.fields import NoParameters, Page, Paging
from ..core.rest.merchant_stores import (
    Store,
    StoreCreate,
    StorePath,
    Terminal,
    TerminalActivation,
    TerminalChange,
    TerminalCreate,
    TerminalCreated,
    TerminalPath,
    TerminalQuery,
)
from ..core.rest.problems import ProblemCode
from ..delivery.publisher import Publisher
from ..ledger import directory, stores
from ..ledger.database import AnyConnection
from ..ledger.rows import plain_uuid
from .support.activation_codes import issue_code, with_code
from .support.dispatch import ApiCall, Handler, Reply
from .support.idempotent_create import IdempotentCreate
from .support.pages import after_id, page
from .support.problems import problem


class MerchantStores:
    """Handlers of the role `merchant` for stores and terminals."""

    def __init__(
        self, pool: asyncpg.Pool, creator: IdempotentCreate, publisher: Publisher, *, activation_ttl_s: float
    ) -> None:
        self._pool = pool
        self._creator = creator
        self._activation_ttl_s = activation_ttl_s
        self._publisher = publisher

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by the names of STORE_ENDPOINTS."""
        return {
            "createStore": self.create_store,
            "listStores": self.list_stores,
            "getStore": self.get_store,
            "createTerminal": self.create_terminal,
            "listTerminals": self.list_terminals,
            "getTerminal": self.get_terminal,
            "changeTerminal": self.change_terminal,
            "createTerminalActivation": self.create_activation,
        }

    async def create_store(self, call: ApiCall[NoParameters, NoParameters, StoreCreate]) -> Reply:
        merchant_id, _ = call.key.merchant

        async def create(connection: AnyConnection, secret: bytes) -> Store:
            store_id = await directory.create_store(connection, merchant_id, call.body.name)
            return Store(store_id=store_id, name=call.body.name)

        return await self._creator.create(call, Store, create)

    async def list_stores(self, call: ApiCall[NoParameters, Paging, None]) -> Reply:
        merchant_id, _ = call.key.merchant
        rows = await stores.list_stores(self._pool, merchant_id, after_id(call.query), call.query.limit + 1)
        return Reply(page(Page[Store], [Store(**row) for row in rows], call.query, lambda store: str(store.store_id)))

    async def get_store(self, call: ApiCall[StorePath, NoParameters, None]) -> Reply:
        merchant_id, _ = call.key.merchant
        row = await stores.find_store(self._pool, merchant_id, call.parameters.store_id)
        if row is None:
            raise problem(ProblemCode.NOT_FOUND)
        return Reply(Store(**row))

    async def create_terminal(self, call: ApiCall[NoParameters, NoParameters, TerminalCreate]) -> Reply:
        merchant_id, _ = call.key.merchant
        body = call.body

        async def create(connection: AnyConnection, secret: bytes) -> TerminalCreated:
            if await stores.find_store(connection, merchant_id, body.store_id) is None:
                raise problem(ProblemCode.NOT_FOUND, "Unknown store.", pointer="/store_id")
            number = await directory.create_terminal(connection, body.store_id, body.name)
            terminal = await _find_terminal(connection, merchant_id, number)
            expires_at = await issue_code(connection, _device(number), secret, self._activation_ttl_s)
            return TerminalCreated(**terminal.model_dump(), activation_code=None, activation_ends_at=expires_at)

        return await self._creator.create(call, TerminalCreated, create, with_code)

    async def list_terminals(self, call: ApiCall[NoParameters, TerminalQuery, None]) -> Reply:
        merchant_id, _ = call.key.merchant
        query = call.query
        rows = await stores.list_terminals(
            self._pool, merchant_id, after_id(query), query.limit + 1, store_id=query.store_id
        )
        terminals = [_terminal(row) for row in rows]
        return Reply(page(Page[Terminal], terminals, query, lambda terminal: str(terminal.terminal_number)))

    async def get_terminal(self, call: ApiCall[TerminalPath, NoParameters, None]) -> Reply:
        merchant_id, _ = call.key.merchant
        return Reply(await _find_terminal(self._pool, merchant_id, call.parameters.terminal_number))

    async def change_terminal(self, call: ApiCall[TerminalPath, NoParameters, TerminalChange]) -> Reply:
        merchant_id, _ = call.key.merchant
        number, status = call.parameters.terminal_number, TerminalStatus(call.body.status)
        async with self._pool.acquire() as connection, connection.transaction():
            await _find_terminal(connection, merchant_id, number)
            await directory.set_terminal_status(connection, number, status)
            terminal = await _find_terminal(connection, merchant_id, number)
        # Also for a repeat: the first request may have been interrupted between its commit and this call.
        self._publisher.notify(status_notice(number, status))
        return Reply(terminal)

    async def create_activation(self, call: ApiCall[TerminalPath, NoParameters, None]) -> Reply:
        merchant_id, _ = call.key.merchant
        number = call.parameters.terminal_number

        async def create(connection: AnyConnection, secret: bytes) -> TerminalActivation:
            await _find_terminal(connection, merchant_id, number)
            expires_at = await issue_code(connection, _device(number), secret, self._activation_ttl_s)
            return TerminalActivation(terminal_number=number, activation_code=None, activation_ends_at=expires_at)

        return await self._creator.create(call, TerminalActivation, create, with_code)


def _device(number: int) -> DeviceId:
    return DeviceId(DeviceKind.TERMINAL, number)


async def _find_terminal(connection: AnyConnection | asyncpg.Pool, merchant_id: int, number: int) -> Terminal:
    row = await stores.find_terminal(connection, merchant_id, number)
    if row is None:
        raise problem(ProblemCode.NOT_FOUND)
    return _terminal(row)


def _terminal(row: asyncpg.Record) -> Terminal:
    columns: dict[str, Any] = dict(row)
    shift_id = columns.pop("shift_id")
    return Terminal(**columns, shift_id=None if shift_id is None else plain_uuid(shift_id))
