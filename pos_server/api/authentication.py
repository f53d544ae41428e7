"""Who may use the REST API: `Authorization: Bearer KEY` (RFC 6750), checked against the stored hashes."""

import math
import time
from http import HTTPStatus

import asyncpg
import structlog
from starlette.requests import Request

from ..core.api_keys import API_KEY_CHARS_MAX, ApiKey, Scope
from ..core.lockout import FailureLimit
from ..ledger.api_keys import find_api_key
from ..ledger.database import DATABASE_AWAY
from ..settings import Settings
from .bodies import database_away
from .problems import Problem

log = structlog.get_logger(__name__)


class Authentication:
    """Wrong keys are counted by address, so that guessing is slow."""

    def __init__(self, settings: Settings, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._failures = FailureLimit(
            settings.api_key_failures_max, settings.api_key_failures_window_s, settings.addresses_tracked_max
        )

    async def require(self, request: Request, scope: Scope) -> ApiKey:
        """The request's key, which has this scope. Raises Problem: 401, 403, 429 or 503."""
        address = request.client.host if request.client else ""
        blocked_s = self._failures.blocked_for_s(address, time.monotonic())
        if blocked_s:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too_many_attempts",
                "too many wrong API keys came from this address; wait before the next one",
                retry_after_s=math.ceil(blocked_s),
            )
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip()
        found = None
        if kind.lower() == "bearer" and 0 < len(key) <= API_KEY_CHARS_MAX:
            try:
                found = await find_api_key(self._pool, key)
            except DATABASE_AWAY as away:
                log.warning("database_away", during="api authentication", cause=type(away).__name__)
                raise database_away() from None
            if found is None:
                self._failures.record(address, time.monotonic())
        if found is None:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "send `Authorization: Bearer KEY` with a valid API key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if scope not in found.scopes:
            raise Problem(HTTPStatus.FORBIDDEN, "scope_missing", f"this API key lacks the scope {scope}")
        return found
