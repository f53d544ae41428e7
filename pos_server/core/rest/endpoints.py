"""The description of a REST endpoint."""

from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus

from ..credentials.api_keys import Role
from .fields import Body, NoParameters, Parameters, Resource

IDEMPOTENCY_KEY_CHARS_MAX = 64


class Kind(Enum):
    """Kind of an endpoint, which defines how a request can be repeated.

    - READ: changes nothing.
    - CREATE: creates one object per `Idempotency-Key`; the response is 201, and 200 for a repeat.
    - CHANGE: is idempotent by itself.
    - REPLACE: replaces a version that the client has read; `If-Match` must contain its `ETag`.
    """

    READ = auto()
    CREATE = auto()
    CHANGE = auto()
    REPLACE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A method of a path, with its role, models and possible responses.

    - `versioned`: the response has an `ETag`.
    - `conflicts`: the object's state may not allow the request (409).
    - `pends`: the payment may wait for its PIN (202).
    - `archives`: the payment may be archived (410).
    - `localized`: the response contains texts for people, in the language of `Accept-Language`.
    """

    name: str
    role: Role
    kind: Kind
    method: str
    path: str
    summary: str
    response: type[Resource]
    parameters: type[Parameters] = NoParameters
    query: type[Parameters] = NoParameters
    body: type[Body] | None = None
    versioned: bool = False
    conflicts: bool = False
    pends: bool = False
    archives: bool = False
    localized: bool = False

    @property
    def statuses(self) -> tuple[HTTPStatus, ...]:
        """The status codes of successful responses."""
        statuses = [HTTPStatus.OK]
        if self.kind is Kind.CREATE:
            statuses.append(HTTPStatus.CREATED)
        if self.pends:
            statuses.append(HTTPStatus.ACCEPTED)
        return tuple(statuses)

    @property
    def problem_statuses(self) -> tuple[HTTPStatus, ...]:
        """The status codes of problems, in ascending order."""
        statuses = {
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        }
        if self.parameters is not NoParameters or self.body is not None:
            statuses.add(HTTPStatus.NOT_FOUND)
        if self.body is not None:
            statuses |= {HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE}
        if self.kind is Kind.CREATE:
            statuses |= {HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY}
        if self.kind is Kind.REPLACE:
            statuses |= {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.PRECONDITION_REQUIRED}
        if self.conflicts:
            statuses.add(HTTPStatus.CONFLICT)
        if self.archives:
            statuses.add(HTTPStatus.GONE)
        return tuple(sorted(statuses))
