"""Clients of a pos-server: `TerminalClient` (a till), `WalletClient`, and `ApiClient` (the REST API).

The rooms: `device` holds the parts that tills and wallets share, `terminal` the till, `wallet` the wallet, `rest` the
REST API, `cli` the commands `pos-terminal` and `pos-wallet`. `errors` has all exceptions. `images` draws and reads
payment codes; it needs the `demo` extra. The package imports nothing of pos_server except its pure core.
"""

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
