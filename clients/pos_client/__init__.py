"""Clients of a pos-server: a till, a wallet, the REST API. Images of codes are in `pos_client.images`."""

from .device.activation import activate
from .device.backoff import Backoff
from .device.credentials import Credentials
from .errors import (
    ActivationError,
    ApiError,
    ClientError,
    CodesExhausted,
    ConnectionStopped,
    CredentialsError,
    ImageError,
    OutcomeUnknown,
    RefundNotDone,
    RefundRefused,
    RefundUnknown,
    RequestNotDone,
    RequestRefused,
    RequestUnanswered,
    ScanNotDone,
    ScanRefused,
)
from .rest.client import ApiClient
from .terminal.client import TerminalClient
from .terminal.recovery import Recovered, RecoveredCancel, RecoveredRefund, RecoveredScan
from .wallet.client import WalletClient
from .wallet.codes import CodeSource, ShownCode

__all__ = [
    "ActivationError",
    "ApiClient",
    "ApiError",
    "Backoff",
    "ClientError",
    "CodeSource",
    "CodesExhausted",
    "ConnectionStopped",
    "Credentials",
    "CredentialsError",
    "ImageError",
    "OutcomeUnknown",
    "Recovered",
    "RecoveredCancel",
    "RecoveredRefund",
    "RecoveredScan",
    "RefundNotDone",
    "RefundRefused",
    "RefundUnknown",
    "RequestNotDone",
    "RequestRefused",
    "RequestUnanswered",
    "ScanNotDone",
    "ScanRefused",
    "ShownCode",
    "TerminalClient",
    "WalletClient",
    "activate",
]
