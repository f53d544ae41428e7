"""`POST /v1/activations`: a new device exchanges its one-time code for its identity and key."""

import base64
import math
import time
from http import HTTPStatus

import asyncpg
import structlog
from starlette.requests import Request
from starlette.responses import Response

from ..core.credentials.activation import Activation, ActivationRequest
from ..core.credentials.device_keys import Keyring
from ..core.rate_limits import FailureLimit
from ..core.rest.problems import ProblemCode
from ..delivery.publisher import Publisher
from ..ledger import directory
from ..ledger.failures import DATABASE_ERRORS, Phase, report
from ..telemetry.logs import about_request
from .support.bodies import read_body
from .support.dispatch import request_id_of
from .support.problems import Problem, database_problem, problem

log = structlog.get_logger(__name__)


class Activations:
    """Exchange of activation codes for keys. `wrong_codes` counts failures per address, which slows down guessing."""

    def __init__(
        self,
        keyring: Keyring,
        pool: asyncpg.Pool,
        publisher: Publisher,
        wrong_codes: FailureLimit,
        *,
        body_bytes_max: int,
    ) -> None:
        self._publisher = publisher
        self._keyring = keyring
        self._pool = pool
        self._failures = wrong_codes
        self._body_bytes_max = body_bytes_max

    async def create(self, request: Request) -> Response:
        """Respond 200 with an `Activation`. A repeat with the same `request_id` gets the same response."""
        about_request(request_id_of(request))
        address = request.client.host if request.client else ""
        blocked_s = self._failures.blocked_for_s(address, time.monotonic())
        if blocked_s:
            raise problem(ProblemCode.TOO_MANY_ATTEMPTS, retry_after_s=math.ceil(blocked_s))
        body = await read_body(request, ActivationRequest, self._body_bytes_max)
        kid = self._keyring.current
        try:
            async with self._pool.acquire() as connection:
                activated = await directory.use_activation(connection, body.activation_code, body.request_id, kid)
        except DATABASE_ERRORS as error:
            raise database_problem(report(error, Phase.WRITE, during="activation")) from None
        key = None
        if activated is not None:
            key = self._keyring.device_key(activated.kid, activated.device, activated.generation)
        if activated is None or key is None:
            self._failures.record(address, time.monotonic())
            raise Problem(
                HTTPStatus.NOT_FOUND,
                "activation_unknown",
                "The activation code is unknown, expired or used. Request a new code.",
            )
        # Close connections with the device's previous key, at all servers.
        self._publisher.revoke(activated.device, activated.generation)
        log.info("device_activated", kind=activated.device.kind.value, number=activated.device.number)
        activation = Activation(
            kind=activated.device.kind,
            number=activated.device.number,
            slot=activated.device.slot,
            kid=activated.kid,
            device_key=base64.b64encode(key).decode(),
            currency=activated.currency,
            name=activated.name,
        )
        headers = {"Cache-Control": "no-store"}
        return Response(activation.model_dump_json(), headers=headers, media_type="application/json")
