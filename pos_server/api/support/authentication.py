"""Authentication of REST requests: `Authorization: Bearer KEY` (RFC 6750), checked against the stored hashes."""

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
    """Check of API keys. `wrong_keys` counts failures per address, which slows down guessing."""

    def __init__(self, pool: asyncpg.Pool, wrong_keys: FailureLimit) -> None:
        self._pool = pool
        self._failures = wrong_keys

    async def require(self, request: Request) -> ApiKey:
        """Return the request's API key. Raises Problem (401 or 429) and DATABASE_ERRORS."""
        address = request.client.host if request.client else ""
        blocked_s = self._failures.blocked_for_s(address, time.monotonic())
        if blocked_s:
            raise problem(ProblemCode.TOO_MANY_ATTEMPTS, retry_after_s=math.ceil(blocked_s))
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        secret = secret.strip()
        key = None
        if scheme.lower() == "bearer" and 0 < len(secret) <= API_KEY_CHARS_MAX:
            key = await find_api_key(self._pool, secret)
            if key is None:
                self._failures.record(address, time.monotonic())
        if key is None:
            raise problem(ProblemCode.UNAUTHORIZED)
        return key
