"""Who may use the REST API: `Authorization: Bearer KEY` (RFC 6750), checked against the stored hashes."""

import math
import time

import asyncpg
from starlette.requests import Request

from ...core.credentials.api_keys import API_KEY_CHARS_MAX, ApiKey
from ...core.rate_limits import FailureLimit
from ...core.rest.problems import ProblemCode
from ...ledger.api_keys import find_api_key
from .problems import problem


class Authentication:
    """Checks API keys. `wrong_keys` counts failures by address, so that guessing is slow."""

    def __init__(self, pool: asyncpg.Pool, wrong_keys: FailureLimit) -> None:
        self._pool = pool
        self._failures = wrong_keys

    async def require(self, request: Request) -> ApiKey:
        """The request's key. Raises Problem: 401 or 429; and DATABASE_AWAY."""
        address = request.client.host if request.client else ""
        blocked_s = self._failures.blocked_for_s(address, time.monotonic())
        if blocked_s:
            raise problem(ProblemCode.TOO_MANY_ATTEMPTS, retry_after_s=math.ceil(blocked_s))
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip()
        found = None
        if kind.lower() == "bearer" and 0 < len(key) <= API_KEY_CHARS_MAX:
            found = await find_api_key(self._pool, key)
            if found is None:
                self._failures.record(address, time.monotonic())
        if found is None:
            raise problem(ProblemCode.UNAUTHORIZED)
        return found
