"""Versions of resources: `ETag` and `If-Match` (RFC 9110, sections 8.8.3 and 13.1.1)."""

from hashlib import sha256

from ...core.rest.fields import Resource
from ...core.rest.problems import ProblemCode
from .problems import problem


def etag(resource: Resource) -> str:
    """Return a strong entity tag, which is equal for equal resources."""
    return f'"{sha256(resource.model_dump_json().encode()).hexdigest()[:32]}"'


def require_match(if_match: str, resource: Resource) -> None:
    """Raise Problem (412) unless `if_match` contains the current entity tag of `resource` or is `*`."""
    tags = [tag.strip() for tag in if_match.split(",")]
    if tags != ["*"] and etag(resource) not in tags:
        raise problem(ProblemCode.PRECONDITION_FAILED)
