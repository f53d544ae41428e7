"""Makes something once for each `Idempotency-Key`, and answers repeats with the first answer."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

import asyncpg

from ...core.credentials.device_keys import Keyring
from ...core.rest.fields import Resource
from ...core.rest.idempotency import derived_secret
from ...core.rest.problems import ProblemCode
from ...ledger.database import AnyConnection
from ...ledger.idempotency import InProgress, KeyReused, create_once
from .dispatch import ApiCall, Reply
from .problems import problem

ResourceT = TypeVar("ResourceT", bound=Resource)
# Secrets are made from the request and a master key, 32 bytes, so that they need not be kept.
Make = Callable[[AnyConnection, bytes], Awaitable[ResourceT]]
Tell = Callable[[ResourceT, bytes], ResourceT]


class IdempotentCreate:
    """Needs the ledger's pool, and the keyring that secrets are made with."""

    def __init__(self, pool: asyncpg.Pool, keyring: Keyring) -> None:
        self._pool = pool
        self._keyring = keyring

    async def create(
        self,
        call: ApiCall[Any, Any, Any],
        answer: type[ResourceT],
        make: Make[ResourceT],
        tell: Tell[ResourceT] | None = None,
    ) -> Reply:
        """201 with what `make` made in its transaction, 200 for a repeat; `tell` puts secrets in, which are not kept.

        Secrets whose master key is retired are not told again. Raises Problem: 409 `in_progress`, 422
        `idempotency_key_reused`.
        """

        def secret_of(kid: str) -> bytes | None:
            return derived_secret(self._keyring, kid, call.key.tenant, call.endpoint.name, call.idempotency_key)

        async def make_json(connection: AnyConnection) -> str:
            secret = secret_of(self._keyring.current)
            if secret is None:
                raise AssertionError("the current master key is in the ring")
            return (await make(connection, secret)).model_dump_json()

        try:
            stored = await create_once(
                self._pool, call.key.tenant, call.idempotency_key, call.fingerprint, self._keyring.current, make_json
            )
        except InProgress:
            raise problem(ProblemCode.IN_PROGRESS, retry_after_s=1) from None
        except KeyReused:
            raise problem(ProblemCode.IDEMPOTENCY_KEY_REUSED) from None
        made = answer.model_validate_json(stored.json)
        secret = secret_of(stored.kid)
        if tell is not None and secret is not None:
            made = tell(made, secret)
        return Reply(made, HTTPStatus.OK if stored.is_repeat else HTTPStatus.CREATED)
