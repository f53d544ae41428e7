"""Reads a request's JSON body, bounded, into a model; what is wrong with it becomes a Problem."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from ...core.errors import ErrorCode
from ...core.protocol.codec import first_problem
from ...core.rest.problems import ProblemCode
from .problems import Problem, json_pointer, problem

ModelT = TypeVar("ModelT", bound=BaseModel)


async def read_json_body(request: Request, model: type[ModelT], bytes_max: int) -> ModelT:
    """As `read_body`, of a request that says it is JSON. Raises Problem: 415 too."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise problem(ProblemCode.UNSUPPORTED_MEDIA_TYPE)
    return await read_body(request, model, bytes_max)


async def read_body(request: Request, model: type[ModelT], bytes_max: int) -> ModelT:
    """The body as a `model`. Raises Problem: 413 `body_too_large`, 400 `bad_json` or `bad_field`."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise problem(ProblemCode.BODY_TOO_LARGE, f"the body is longer than {bytes_max} bytes")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        field, text = first_problem(error)
    if not field:
        raise problem(ProblemCode.BAD_JSON)
    raise problem(ProblemCode.BAD_FIELD, text, pointer=json_pointer(field))


def database_away() -> Problem:
    """What a request gets while the database does not answer: it was not acted on."""
    return problem(ErrorCode.BUSY, "the database is away; try again", retry_after_s=1)
