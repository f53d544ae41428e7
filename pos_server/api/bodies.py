"""Reads a request's JSON body, bounded, into a model; what is wrong with it becomes a Problem."""

from http import HTTPStatus
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from ..core.messages import describe
from .problems import Problem, json_pointer

ModelT = TypeVar("ModelT", bound=BaseModel)


async def read_body(request: Request, model: type[ModelT], bytes_max: int) -> ModelT:
    """The body as a `model`. Raises Problem: 413 `body_too_large`, 400 `bad_json` or `bad_field`."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", f"the body is longer than {bytes_max} bytes"
            )
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        field, problem = describe(error)
    if not field:
        raise Problem(HTTPStatus.BAD_REQUEST, "bad_json", "the body is not a JSON object")
    raise Problem(HTTPStatus.BAD_REQUEST, "bad_field", problem, pointer=json_pointer(field))


def database_away() -> Problem:
    """What a request gets while the database does not answer: it was not acted on."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "the database is away; try again", retry_after_s=1)
