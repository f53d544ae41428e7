"""Which version of a thing a client has read: `ETag` and `If-Match` (RFC 9110, sections 8.8.3 and 13.1.1)."""

from hashlib import sha256

from ...core.rest.fields import Resource
from ...core.rest.problems import ProblemCode
from .problems import problem


def etag(resource: Resource) -> str:
    """A strong tag: equal for equal things."""
    return f'"{sha256(resource.model_dump_json().encode()).hexdigest()[:32]}"'


def require_match(if_match: str, resource: Resource) -> None:
    """Raises Problem: 412, unless one of the tags in `if_match` is that of `resource` as it is now, or it is `*`."""
    tags = [tag.strip() for tag in if_match.split(",")]
    if tags != ["*"] and etag(resource) not in tags:
        raise problem(ProblemCode.PRECONDITION_FAILED)
