"""Activation codes that the REST API hands out: made from the request, so that a repeat is told the same."""

from typing import TypeVar

from ...core.credentials.activation import ACTIVATION_BYTES, activation_code
from ...core.credentials.device_keys import DeviceId
from ...core.rest.issuer import WalletDeviceActivation
from ...core.rest.merchant_stores import TerminalActivation, TerminalCreated
from ...ledger import directory
from ...ledger.database import AnyConnection
from .times import rfc3339

MadeT = TypeVar("MadeT", WalletDeviceActivation, TerminalActivation, TerminalCreated)


async def issue_code(connection: AnyConnection, device: DeviceId, secret: bytes, ttl_s: float) -> str:
    """Let whoever is told the code become `device`, once, until the time that is returned."""
    return rfc3339(await directory.issue_activation(connection, device, _code(secret), ttl_s=ttl_s))


def tell_code(made: MadeT, secret: bytes) -> MadeT:
    """The answer with the code of `issue_code`."""
    return made.model_copy(update={"activation_code": _code(secret)})


def _code(secret: bytes) -> str:
    return activation_code(secret[:ACTIVATION_BYTES])
