"""The AsyncAPI document for tests, and validation against its schemas."""

import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft7Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from pos_server.core.protocol.asyncapi import WireLimits, asyncapi_document

LIMITS = WireLimits(
    frame_bytes_max=4096,
    heartbeat_s=20,
    heartbeat_timeout_s=20,
    authenticate_within_s=5,
    messages_per_s=50,
    messages_burst=100,
    device_operations_max=16,
    operation_deadline_s=10,
    queries_per_s=2,
    queries_burst=20,
    connection_requests_max=4,
    confirmation_s=60,
    pin_payment_failures_max=3,
    pin_failures_max=5,
    pin_lock_s=86_400,
)
DOCUMENT: dict[str, Any] = asyncapi_document("0.1.0", LIMITS)
SCHEMAS: dict[str, dict[str, Any]] = DOCUMENT["components"]["schemas"]
A_UUID = "019cae79-5378-7645-91fc-d6f07823cb87"
# A valid message of each type that clients send.
EXAMPLES: dict[str, dict[str, Any]] = {
    "Authenticate": {"type": "authenticate", "message_id": "1", "id": 1, "kid": "k1", "mac": "0" * 64},
    "PaymentScan": {
        "type": "payment.scan",
        "message_id": "1",
        "payment_id": A_UUID,
        "reference": "order-1",
        "amount_minor": 1000,
        "currency": "EUR",
        "code": "1",
    },
    "PaymentQuery": {"type": "payment.query", "message_id": "1", "reference": "order-1"},
    "PaymentCancel": {"type": "payment.cancel", "message_id": "1", "payment_id": A_UUID},
    "Resume": {"type": "resume", "message_id": "1", "since_ms": 0, "cursor": f"0.{A_UUID}.0", "limit": 1},
    "PaymentsRecent": {"type": "payments.recent", "message_id": "1", "limit": 5},
    "ShiftOpen": {"type": "shift.open", "message_id": "1", "shift_id": A_UUID, "operator": "Alice"},
    "ShiftClose": {"type": "shift.close", "message_id": "1", "shift_id": A_UUID, "counted_cash_minor": 0},
    "ShiftQuery": {"type": "shift.query", "message_id": "1", "shift_id": None},
    "RefundCreate": {
        "type": "refund.create",
        "message_id": "1",
        "refund_id": A_UUID,
        "payment_id": A_UUID,
        "amount_minor": 1,
    },
    "PaymentConfirm": {
        "type": "payment.confirm",
        "message_id": "1",
        "payment_id": A_UUID,
        "version": 1,
        "pin": "407186",
    },
    "PaymentReject": {"type": "payment.reject", "message_id": "1", "payment_id": A_UUID},
    "PinSet": {"type": "pin.set", "message_id": "1", "request_id": A_UUID, "new_pin": "407186"},
    "History": {"type": "history", "message_id": "1"},
}


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Match as ECMA 262 does, which JSON Schema means: `$` is the very end. Python's accepts a line break after it."""
    if isinstance(instance, str) and not re.search(python_pattern(pattern), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def python_pattern(pattern: str) -> str:
    """Return the pattern with the same meaning in Python."""
    return re.sub(r"\$$", r"\\Z", pattern)


_Validator = extend(Draft7Validator, {"pattern": _pattern})


def validator(name: str) -> Any:
    """Return a validator for one schema of the document; its references reach the others."""
    return _Validator(SCHEMAS[name] | {"components": {"schemas": SCHEMAS}}, format_checker=FormatChecker())


def accepts(name: str, message: object) -> bool:
    """Return True if the schema `name` accepts the message."""
    return bool(validator(name).is_valid(message))


def resolve(reference: dict[str, str]) -> Any:
    """Return the target of a reference within the document. Raises LookupError."""
    start, *path = reference["$ref"].split("/")
    assert start == "#"
    found: Any = DOCUMENT
    for part in path:
        found = found[part]
    return found


def names(references: list[dict[str, str]]) -> list[str]:
    """Return the names of the referenced messages."""
    return [resolve(resolve(reference))["title"] for reference in references]
