"""Rules that Schemathesis cannot read from the document. test_schemathesis.py loads this module into its process."""

import re
import uuid
from typing import Any

import schemathesis

# Fields with rules that a schema cannot express: genuine cursors, existing time zones, fields that depend on others.
# Only these may be rejected in a request that matches the document.
BEYOND_THE_SCHEMA = {"/cursor", "/time_zone", "/merchant_id"}
NO_INTEGER = "Input should be a valid integer"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Use a new key for each request: Schemathesis prefers the key `0`, which would return 422 after the first use."""
    headers = case.headers or {}
    if re.fullmatch(r"[!-~]{1,64}", str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = str(uuid.uuid4())


@schemathesis.check
def valid_requests_are_accepted(context: Any, response: Any, case: Any) -> None:
    """Raise if a request that matches the document is rejected as invalid, except by BEYOND_THE_SCHEMA."""
    meta = case.meta
    if response.status_code != 400 or meta is None or not meta.generation.mode.is_positive:
        return
    problem = response.json()
    if problem.get("pointer") in BEYOND_THE_SCHEMA:
        return
    # JSON Schema does not distinguish 437.0 from 437, but the server rejects fractions.
    if problem["detail"] == NO_INTEGER and re.search(rb"\d\.0\b|[eE]", response.request.body or b""):
        return
    raise AssertionError(f"matches the document but is rejected: {problem}")
