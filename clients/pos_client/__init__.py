"""Clients of a pos-server: a till, a wallet, and what both need. Images of codes are in `pos_client.images`."""

from .activation import activate
from .backoff import Backoff
from .codes import CodeSource, ShownCode
from .credentials import Credentials
from .errors import (
    ActivationError,
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
