"""The bounds that each part works under, grouped by the part that reads them. `Settings` makes them.

Times end in `_s` or `_ms`, sizes in `_bytes`. Every queue, frame, batch, retry and timeout of the server has its bound
here or in core/payments/rules.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizerLimits:
    """Bounds of the batch engine. An operation that waited longer than `operation_deadline_s` is answered BUSY.

    `device_operations_max` bounds the open operations of one terminal or wallet, so that it can neither fill the queue
    alone nor try more forged codes at once than the limit on them allows.
    """

    queue_operations_max: int
    device_operations_max: int
    lanes: int
    batch_operations_max: int
    batch_attempts_max: int
    batch_timeout_s: float
    operation_deadline_s: float
    connect_timeout_s: float


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Messages that may wait for one peer to read them."""

    messages_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """Bounds on WebSockets, in all and per address. A browser's page must be of one of `origins`."""

    connections_max: int
    address_connections_max: int
    origins: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationLimits:
    """Bounds on the messages of one connection: rates, bursts, and slow requests at work at once."""

    messages_per_s: float
    messages_burst: int
    bad_messages_per_s: float
    bad_messages_burst: int
    queries_per_s: float
    queries_burst: int
    requests_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLimits:
    """Bounds of a device's session. A gap of more than `resume_payments_max` payments is not replayed.

    A replay starts `resume_overlap_ms` before the device's mark: longer than any transaction may live.
    """

    heartbeat_s: int
    authentication_timeout_s: int
    frame_bytes_max: int
    resume_overlap_ms: int
    resume_payments_max: int
    conversation: ConversationLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainLimits:
    """How long a server may take to end, and over how long its devices spread their reconnects."""

    timeout_s: float
    reconnect_within_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PinHasherLimits:
    """Argon2id's cost (RFC 9106: t, m), the threads that compute it, and the checks that may wait for them."""

    passes: int
    memory_kib: int
    threads: int
    waiting_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """Bounds on REST requests, in all and per API key."""

    body_bytes_max: int
    timeout_s: float
    requests_max: int
    requests_per_s: float
    requests_burst: int
    keys_tracked_max: int
