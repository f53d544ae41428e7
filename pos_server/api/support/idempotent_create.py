"""Create an object once per `Idempotency-Key`; repeats get the first response."""

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
# The second argument is a secret of 32 bytes, derived from the request and a master key so that it need not be stored.
CreateResource = Callable[[AnyConnection, bytes], Awaitable[ResourceT]]
AddSecret = Callable[[ResourceT, bytes], ResourceT]


class IdempotentCreate:
    """Creator of objects. The secrets in its responses are derived from the keyring."""

    def __init__(self, pool: asyncpg.Pool, keyring: Keyring) -> None:
        self._pool = pool
        self._keyring = keyring

    async def create(
        self,
        call: ApiCall[Any, Any, Any],
        model: type[ResourceT],
        create: CreateResource[ResourceT],
        add_secret: AddSecret[ResourceT] | None = None,
    ) -> Reply:
        """Run `create` in a transaction and reply 201 with its resource; reply 200 to a repeat.

        `add_secret` adds the secret to the response; the stored response does not contain it. A repeat after the
        retirement of the master key gets no secret. Raises Problem: 409 `in_progress`, 422 `idempotency_key_reused`.
        """

        def secret_of(kid: str) -> bytes | None:
            return derived_secret(self._keyring, kid, call.key.tenant, call.endpoint.name, call.idempotency_key)

        async def create_json(connection: AnyConnection) -> str:
            secret = secret_of(self._keyring.current)
            if secret is None:
                raise AssertionError("the current master key is not in the keyring")
            return (await create(connection, secret)).model_dump_json()

        try:
            stored = await create_once(
                self._pool, call.key.tenant, call.idempotency_key, call.fingerprint, self._keyring.current, create_json
            )
        except InProgress:
            raise problem(ProblemCode.IN_PROGRESS, retry_after_s=1) from None
        except KeyReused:
            raise problem(ProblemCode.IDEMPOTENCY_KEY_REUSED) from None
        resource = model.model_validate_json(stored.json)
        secret = secret_of(stored.kid)
        if add_secret is not None and secret is not None:
            resource = add_secret(resource, secret)
        return Reply(resource, HTTPStatus.OK if stored.is_repeat else HTTPStatus.CREATED)
