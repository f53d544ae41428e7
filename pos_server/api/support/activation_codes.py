"""Activation codes in REST responses, derived from the request so that a repeat returns the same code."""

from typing import TypeVar

from ...core.credentials.activation import ACTIVATION_BYTES, activation_code
from ...core.credentials.device_keys import DeviceId
from ...core.rest.issuer import WalletDeviceActivation
from ...core.rest.merchant_stores import TerminalActivation, TerminalCreated
from ...ledger import directory
from ...ledger.database import AnyConnection
from .times import rfc3339

ActivationT = TypeVar("ActivationT", WalletDeviceActivation, TerminalActivation, TerminalCreated)


async def issue_code(connection: AnyConnection, device: DeviceId, secret: bytes, ttl_s: float) -> str:
    """Store a one-time activation code for `device`; return its expiry in RFC 3339."""
    return rfc3339(await directory.issue_activation(connection, device, _code(secret), ttl_s=ttl_s))


def with_code(resource: ActivationT, secret: bytes) -> ActivationT:
    """Return the resource with the code of `issue_code`."""
    return resource.model_copy(update={"activation_code": _code(secret)})


def _code(secret: bytes) -> str:
    return activation_code(secret[:ACTIVATION_BYTES])
