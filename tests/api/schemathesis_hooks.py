"""What Schemathesis cannot read out of the document: loaded into its process by test_schemathesis.py."""

import re
import uuid
from typing import Any

import schemathesis

# Fields whose rules stand in words: a schema cannot tell a cursor of ours, a time zone that exists, or that one field
# goes with another. Only these may be refused in a request that fits the document.
SAID_IN_WORDS = {"/cursor", "/time_zone", "/merchant_id"}
NO_INTEGER = "Input should be a valid integer"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A new thing each time: Schemathesis likes the key `0`, which makes one thing and then answers 422."""
    headers = case.headers or {}
    if re.fullmatch(r"[!-~]{1,64}", str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = str(uuid.uuid4())


@schemathesis.check
def what_fits_is_taken(context: Any, response: Any, case: Any) -> None:
    """A request that fits the document is refused only by the state of things, and by rules that stand in words."""
    meta = case.meta
    if response.status_code != 400 or meta is None or not meta.generation.mode.is_positive:
        return
    problem = response.json()
    if problem.get("pointer") in SAID_IN_WORDS:
        return
    # JSON Schema cannot tell 437.0 from 437, and the server takes no fractions.
    if problem["detail"] == NO_INTEGER and re.search(rb"\d\.0\b|[eE]", response.request.body or b""):
        return
    raise AssertionError(f"fits the document and is refused: {problem}")
