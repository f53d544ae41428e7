"""Limits, grouped by the part that applies them. `Settings` creates them.

Limits that a decision needs are in core/payments/rules.py; constants that no operator has to change are in the module
that applies them. Names of times end in `_s` or `_ms`, names of sizes in `_bytes`.
"""

from dataclasses import dataclass

# A server counts as silent when its peers have received nothing from it for this many intervals of `alive`.
PEER_SILENT_INTERVALS = 3
# Largest difference between the clocks of servers on one database.
CLOCK_SKEW_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizerLimits:
    """Limits of the batch engine. An operation that waits longer than `operation_deadline_s` is rejected as BUSY.

    `device_operations_max` limits the open operations of one terminal or wallet. It can therefore neither fill the
    queue alone nor try many forged codes at once.
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
    """Limits of the messages that wait until one peer reads them."""

    messages_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """Limits on open WebSockets, in total and per address. A web page must come from one of `origins`."""

    connections_max: int
    address_connections_max: int
    origins: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationLimits:
    """Limits on the messages of one connection: rates, bursts, and concurrent slow requests."""

    messages_per_s: float
    messages_burst: int
    bad_messages_per_s: float
    bad_messages_burst: int
    queries_per_s: float
    queries_burst: int
    requests_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLimits:
    """Limits of a device's session. A gap of more than `resume_payments_max` payments is replayed in pages.

    A replay starts `resume_overlap_ms` before the device's mark. That is longer than any transaction can last.
    """

    heartbeat_s: int
    authentication_timeout_s: int
    frame_bytes_max: int
    resume_overlap_ms: int
    resume_payments_max: int
    conversation: ConversationLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainLimits:
    """The time in which a server must end, and the period over which its devices spread their reconnects."""

    timeout_s: float
    reconnect_within_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PinHasherLimits:
    """The cost of Argon2id (t and m in RFC 9106), the threads that compute it, and the length of their queue."""

    passes: int
    memory_kib: int
    threads: int
    waiting_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """Limits on REST requests, in total and per API key."""

    body_bytes_max: int
    timeout_s: float
    requests_max: int
    requests_per_s: float
    requests_burst: int
    keys_tracked_max: int
