"""Clients of a pos-server: a till, a wallet, the REST API. Images of codes are in `pos_client.images`."""

from .activation import activate
from .api import ApiClient
from .backoff import Backoff
from .codes import CodeSource, ShownCode
from .credentials import Credentials
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
from .recovery import Recovered, RecoveredCancel, RecoveredRefund, RecoveredScan
from .terminal import TerminalClient
from .wallet import WalletClient

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
