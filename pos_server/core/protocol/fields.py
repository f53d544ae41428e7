"""Types of fields that both directions use: identifiers, references, and how a field is described."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    Field,
    StringConstraints,
)

MESSAGE_ID_CHARS_MAX = 64
REFERENCE_CHARS_MAX = 64
CURSOR_PATTERN = r"^[0-9]{1,15}\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


def described(description: str, **schema: Any) -> Any:
    """Describes a field, with more of JSON Schema, and checks nothing."""
    return Field(description=description, json_schema_extra=schema)


PRINTABLE_PATTERN = r"^[!-~](?:[ -~]*[!-~])?$"
MessageId = Annotated[
    str,
    StringConstraints(max_length=MESSAGE_ID_CHARS_MAX, pattern=PRINTABLE_PATTERN),
    Field(description="the client's choice, printable ASCII; the answer carries it as `reply_to`"),
]
Reference = Annotated[
    str,
    StringConstraints(max_length=REFERENCE_CHARS_MAX, pattern=PRINTABLE_PATTERN),
    Field(description="the merchant's order number, printable ASCII; one order is paid once"),
]
UUID_PATTERN = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
PaymentId = Annotated[
    UUID, described("names the payment for ever; made by the till, best as a UUIDv7", pattern=UUID_PATTERN)
]
ShiftId = Annotated[
    UUID, described("names the shift for ever; made by the till, best as a UUIDv7", pattern=UUID_PATTERN)
]
