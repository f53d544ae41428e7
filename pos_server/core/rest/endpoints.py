"""What an operation of the REST API is."""

from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus

from ..credentials.api_keys import Role
from .fields import Body, NoParameters, Parameters, Resource

IDEMPOTENCY_KEY_CHARS_MAX = 64


class Kind(Enum):
    """What an operation does, which says how it is repeated."""

    # Any number of times.
    READ = auto()
    # Makes something new, once for each `Idempotency-Key`: 201, and 200 for a repeat.
    CREATE = auto()
    # Leaves the same however often it is sent.
    CHANGE = auto()
    # A change of what was read: `If-Match` must be the `ETag` of it.
    REPLACE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path. `conflicts`: the state of things may forbid it (409). `pends`: it may answer 202.

    `archives`: what it is about may be in the archive (410). `speaks`: its answer has texts for people, in the language
    of `Accept-Language`.
    """

    name: str
    role: Role
    kind: Kind
    method: str
    path: str
    summary: str
    answer: type[Resource]
    parameters: type[Parameters] = NoParameters
    query: type[Parameters] = NoParameters
    body: type[Body] | None = None
    versioned: bool = False
    conflicts: bool = False
    pends: bool = False
    archives: bool = False
    speaks: bool = False

    @property
    def statuses(self) -> tuple[HTTPStatus, ...]:
        """What it answers when all goes well."""
        made = (HTTPStatus.CREATED,) if self.kind is Kind.CREATE else ()
        return (HTTPStatus.OK, *made, *((HTTPStatus.ACCEPTED,) if self.pends else ()))

    @property
    def problem_statuses(self) -> tuple[HTTPStatus, ...]:
        """What it answers when something does not."""
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
