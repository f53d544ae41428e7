"""Read a request's JSON body, of bounded size, into a model. An invalid body raises Problem."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from ...core.protocol.codec import first_problem
from ...core.rest.problems import ProblemCode
from .problems import json_pointer, problem

ModelT = TypeVar("ModelT", bound=BaseModel)


async def read_json_body(request: Request, model: type[ModelT], bytes_max: int) -> ModelT:
    """Read the body as `read_body` does, but require a JSON media type. Raises Problem, also 415."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise problem(ProblemCode.UNSUPPORTED_MEDIA_TYPE)
    return await read_body(request, model, bytes_max)


async def read_body(request: Request, model: type[ModelT], bytes_max: int) -> ModelT:
    """Return the body as a `model`. Raises Problem: 413 `body_too_large`, 400 `bad_json` or `bad_field`."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise problem(ProblemCode.BODY_TOO_LARGE, f"The body is larger than {bytes_max} bytes.")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        field, text = first_problem(error)
    if not field:
        raise problem(ProblemCode.BAD_JSON)
    raise problem(ProblemCode.BAD_FIELD, text, pointer=json_pointer(field))
